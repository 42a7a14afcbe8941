"""What the scores of a head come to, in sentences that say no more than they do."""

from __future__ import annotations

from btc_lifecycle.adapters.report_pdf.head_report import (
    AUC,
    GROSS_BP,
    LOG_LOSS_GAIN,
    MODEL,
    MSE_GAIN,
    NET_BP,
    NO_TRADE,
    RIVAL_TITLES,
    TRADE_SHARE,
    HeadReport,
    Score,
    ScoreKind,
    folds_of,
    rivals_of,
    score_of,
    side_of,
)
from btc_lifecycle.adapters.report_pdf.style import number

_GAINS = {
    "above": "the interval lies above 0.",
    "below": "the interval lies below 0: the model is the worse of the two.",
    "around": "the interval includes 0: chance may explain the difference.",
    "unknown": "there is no interval: chance may explain the difference.",
}


def direction_findings(head: HeadReport, *, cost_bp: float) -> list[str]:
    """Return what the scores of directions say of rivals, time, delay and cost."""
    return [
        *_gains(head, LOG_LOSS_GAIN, unit="millinats of log-loss per row"),
        *_steadiness(head, LOG_LOSS_GAIN, rival="prior"),
        delay_finding(head),
        cost_finding(head, cost_bp=cost_bp),
    ]


def volatility_findings(head: HeadReport) -> list[str]:
    """Return what the scores of volatilities say of rivals and time."""
    return [
        *_gains(head, MSE_GAIN, unit="of mean squared error"),
        *_steadiness(head, MSE_GAIN, rival="har"),
    ]


def delay_finding(head: HeadReport) -> str:
    """Return what acting one minute late leaves of the model."""
    late = score_of(head.scores, AUC, delay_min=1)
    gain = score_of(head.scores, LOG_LOSS_GAIN, rival="prior", delay_min=1)
    if late.value is None and gain.value is None:
        return "One minute late: not scored."
    prompt = AUC.write(score_of(head.scores, AUC).value)
    return (
        f"One minute late: AUC {AUC.write(late.value)} instead of {prompt}; gain over the prior "
        f"{_with_interval(LOG_LOSS_GAIN, gain, unit='millinats')}; {_GAINS[side_of(gain)]}"
    )


def cost_finding(head: HeadReport, *, cost_bp: float) -> str:
    """Return what the mean trade of the threshold rule made, before and after its cost."""
    gross, net = (score_of(head.scores, kind) for kind in (GROSS_BP, NET_BP))
    share = score_of(head.scores, TRADE_SHARE)
    cost = f"A trade costs {number(cost_bp)} bp, entry and exit together"
    if share.value is None:
        return f"{cost}. What the rule makes after that was not scored."
    if net.value is None:
        return f"{cost}. What it makes after that is unknown: {NO_TRADE} was made."
    return (
        f"{cost}. On {TRADE_SHARE.write(share.value)} % of rows the rule trades; its mean trade "
        f"makes {GROSS_BP.write(gross.value)} bp before cost and "
        f"{_with_interval(NET_BP, net, unit='bp')} after it: {_earned(net)}"
    )


def _earned(net: Score) -> str:
    value = net.value or 0.0
    if value == 0.0:
        return "it breaks even."
    word = "earns" if value > 0.0 else "loses"
    if side_of(net) in ("around", "unknown"):
        return f"it {word} money on these rows, which chance may explain."
    return f"it {word} money on these rows."


def _gains(head: HeadReport, kind: ScoreKind, *, unit: str) -> list[str]:
    rivals = [rival for rival in rivals_of(head.scores) if rival != MODEL]
    if not rivals:
        return ["No baseline was scored beside the model."]
    scores = {rival: score_of(head.scores, kind, rival=rival) for rival in rivals}
    return [
        f"Gain over {_name(rival)}: not scored."
        if score.value is None
        else f"Gain over {_name(rival)}: {_with_interval(kind, score, unit=unit)}; "
        f"{_GAINS[side_of(score)]}"
        for rival, score in scores.items()
    ]


def _steadiness(head: HeadReport, kind: ScoreKind, *, rival: str) -> list[str]:
    """Return in how many folds the gain is above 0, nothing where there is no such fold."""
    folds = [score_of(head.scores, kind, rival=rival, fold=fold) for fold in folds_of(head.scores)]
    values = [fold.value for fold in folds if fold.value is not None]
    if not values:
        return []
    n_above = sum(value > 0.0 for value in values)
    folds_word = "fold" if len(values) == 1 else "folds"
    return [
        f"Over time: the gain over {_name(rival)} is above 0 in {n_above} of {len(values)} {folds_word}."
    ]


def _with_interval(kind: ScoreKind, score: Score, *, unit: str) -> str:
    bounds = kind.interval(score)
    return f"{kind.write(score.value)} {unit} ({f'95 % interval {bounds}' if bounds else 'no interval'})"


def _name(rival: str) -> str:
    return f"the {RIVAL_TITLES.get(rival, rival)}" if rival != "har" else "HAR"
