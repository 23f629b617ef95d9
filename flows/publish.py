"""`python -m flows.publish SYSTEM`: scores, videos and the report into the MLflow run that trained the system."""

import json
import sys

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Run
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_RUN_NOTE

from data.files import in_place
from flows.tracking import COMMIT, dvc_dataset, held_out_scores, inputs_of, trained_run
from stages.judges import judge_of
from stages.params import output, system_params


def publish(system: str) -> None:
    """Log what evaluate, render and report made; leave where to find it."""
    run, client = trained_run(system), mlflow.MlflowClient()
    run_id = run.info.run_id
    metrics = json.loads((output("evaluation", system) / "metrics.json").read_text())
    for name, value in held_out_scores(system, metrics).items():
        client.log_metric(run_id, name, value)
    held_out = Dataset(**dvc_dataset(str(output("shards", system_params(system).corpus) / "test")).to_dict())
    if (held_out.name, held_out.digest) not in ((one.dataset.name, one.dataset.digest) for one in inputs_of(run)):
        client.log_inputs(run_id, [DatasetInput(held_out, [InputTag(MLFLOW_DATASET_CONTEXT, "testing")])])
    for folder in ("evaluation", "renders"):
        client.log_artifacts(run_id, str(output(folder, system)), folder)
    client.log_artifacts(run_id, str(output("report", "site")), "report")
    client.set_tag(run_id, MLFLOW_RUN_NOTE, note(run, system, judge_of(system).told(metrics)))
    with in_place(output("published", system)) as out:
        where = {"experiment_id": run.info.experiment_id, "run_id": run_id, "run_name": run.info.run_name}
        (out / "run.json").write_text(json.dumps(where, indent=2) + "\n")


def note(run: Run, system: str, told: str) -> str:
    """The run's description, Markdown: what it is, what came of it, and where to look."""
    params, commit = run.data.params, run.data.tags[COMMIT]
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
    trained = f"A training of `{system}`, preset `{params['preset']}`, on `{params['corpus']}`"
    return (
        f"{trained}, by the code of commit `{commit[:10]}`.\n\n"
        f"On the held-out clips: {told}\n\n"
        f"[The report]({page}/report/index.html) of all systems, [the videos and contact sheets]({page}/renders), "
        f"[the scores clip by clip]({page}/evaluation/metrics.json).\n"
    )


if __name__ == "__main__":
    publish(sys.argv[1])
