"""Resources that Dagster must build itself; all others are plain adapters, made in build.py."""

import warnings
from collections.abc import Iterator

import dagster as dg


@dg.resource(
    config_schema={"experiment_name": dg.StringSource, "mlflow_tracking_uri": dg.StringSource},
    required_resource_keys={"registry"},
)
def mlflow_run(context: dg.InitResourceContext) -> Iterator[object]:
    """The MLflow run of this Dagster run, from dagster-mlflow.

    Only the training step may ask for it, as ``with mlflow.active_run():``, which ends the run.
    It is imported here because it costs seconds that no other step should pay.
    """
    # Created by MLflow itself, the experiment would keep its artifacts in the working folder.
    context.resources.registry.ensure_experiment()
    with warnings.catch_warnings():
        # Of dagster-mlflow's own doing: it is a beta, and asks Dagster in a way that will go.
        for category in (dg.BetaWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        from dagster_mlflow import mlflow_tracking  # noqa: PLC0415

        # Dagster's type of the function knows only the form without a context.
        run = next(mlflow_tracking.resource_fn(context))  # type: ignore[call-arg]
    try:
        yield run
    finally:
        # Open still, so training failed before it. MLflow would call it FINISHED, and the next
        # training of this process would log into it.
        run.end_run("FAILED")
