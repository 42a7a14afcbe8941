"""All assets, in the order that the data travels."""

from btc_lifecycle.orchestration.assets import ingest, learn, monitor, online

ASSETS = (
    ingest.candles,
    ingest.candle_history,
    online.online_features,
    ingest.ingestion_report,
    learn.features,
    learn.labels,
    learn.candidate_model,
    learn.candidate_volatility,
    learn.evaluation,
    learn.production_model,
    learn.production_volatility,
    learn.model_report,
    monitor.predictions,
    monitor.outcomes,
    monitor.drift_metrics,
    online.live_summary,
    monitor.monitoring_report,
)
