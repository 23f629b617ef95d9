"""`python -m flows.publish SYSTEM`: scores, videos and the report into the MLflow run that trained the system."""

import json
import sys

import mlflow

from data.files import in_place
from stages.params import output


def publish(system: str) -> None:
    """Log what evaluate, render and report made; leave where to find it."""
    run_id = json.loads((output("training", system) / "run.json").read_text())["run_id"]
    metrics = json.loads((output("evaluation", system) / "metrics.json").read_text())
    flat = {
        f"test/{row}/{name}": value
        for row, scores in ({system: metrics["own"]} | metrics["baselines"]).items()
        for name, value in scores.items()
        if isinstance(value, float)
    }
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(run_id)
    except mlflow.MlflowException as error:
        again = f"train again with `dvc repro --force --single-item train@{system}`, or name its store in MLFLOW_TRACKING_URI"
        raise LookupError(f"{system} was trained in run {run_id}, which this MLflow store does not have: {again}") from error
    for name, value in flat.items():
        client.log_metric(run_id, name, value)
    for folder in ("evaluation", "renders"):
        client.log_artifacts(run_id, str(output(folder, system)), folder)
    client.log_artifacts(run_id, str(output("report", "site")), "report")
    with in_place(output("published", system)) as out:
        where = {"experiment_id": run.info.experiment_id, "run_id": run_id, "run_name": run.info.run_name}
        (out / "run.json").write_text(json.dumps(where, indent=2) + "\n")


if __name__ == "__main__":
    publish(sys.argv[1])
