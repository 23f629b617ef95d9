"""MLflow: one run a training, found again after a crash, with the data's DVC hash, the code's commit and everything made."""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from data.files import atomic_file
from stages.params import locked_stages, output

COMMIT = "git.commit"  # tag: of the code that trained
STORE_LOCK = Path("data/.work/mlflow.lock")
DVC_LOCK = Path(".dvc/tmp/lock")  # whoever reads or writes DVC's files has its flock
TRAINING = "training"  # tag: a name that a training has from its first moment
PARENT_RUN = "TALKINGFACE_PARENT_RUN"  # environment: id of the run below which trainings stand, that of a retraining


class DvcSource(DatasetSource):
    """A dataset that DVC keeps: a path of this repository and the hash of its content."""

    def __init__(self, path: str, md5: str) -> None:
        self.path, self.md5 = path, md5

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    def load(self, **kwargs: Any) -> str:
        """The path, for `mlflow.data`; `dvc checkout` brings the bytes."""
        return self.path

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> "DvcSource":
        raise TypeError("a DVC source is made from a path and a hash")

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "md5": self.md5}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> "DvcSource":
        return cls(source_dict["path"], source_dict["md5"])


def dvc_hash(path: str) -> str:
    """The md5 that `dvc.lock` holds for the output `path`, or the one that it is in.

    A directory's is 36 characters, just what MLflow admits.
    """
    with _no_dvc_at_work():
        stages = locked_stages()
    for stage in stages.values():
        for out in stage.get("outs", []):
            if Path(path).is_relative_to(out["path"]):
                return out["md5"]
    raise LookupError(f"dvc.lock knows no output {path}: make it with `dvc repro` first")


@contextmanager
def _no_dvc_at_work() -> Iterator[None]:
    """DVC takes half a second to write a long dvc.lock, in place, when it commits another stage beside this one."""
    if not DVC_LOCK.exists():
        yield
        return
    with DVC_LOCK.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def dvc_dataset(path: str) -> MetaDataset:
    """A DVC output, or what is in one, as MLflow records what a run saw: by its path and DVC's hash."""
    digest = dvc_hash(path)
    return MetaDataset(DvcSource(path, digest), name=path, digest=digest)  # type: ignore[abstract]


def git(*words: str) -> str:
    """What git answers; empty outside a repository."""
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()


def open_experiment(name: str) -> None:
    """What is logged goes there from now on. Of those that find a new sqlite store at once, one makes its tables."""
    STORE_LOCK.parent.mkdir(parents=True, exist_ok=True)
    with STORE_LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        mlflow.set_experiment(name)


@contextmanager
def training_run(system: str, state: Path, params: dict[str, Any], dataset: str) -> Iterator[str]:
    """An MLflow run of `system`'s experiment; the one that `state` knows of is gone on with if it exists.

    `state` lives as long as the training it belongs to, so a training killed at any moment resumes its own run. Yields the
    run's id. `dataset` is a DVC output, recorded with its hash: `search_runs("dataset.digest = '…'")` finds all that saw it.
    The run stands below that of PARENT_RUN, if the environment names one.
    """
    open_experiment(system)
    if not state.exists():
        state.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(state) as file:
            file.write(json.dumps({"training": uuid4().hex}).encode())
    # By a tag that it is born with: a kill between its birth and a note of its id would leave a run that nobody goes on with.
    name = json.loads(state.read_text())["training"]
    found = mlflow.search_runs(experiment_names=[system], filter_string=f"tags.{TRAINING} = '{name}'", output_format="list")
    known = found[0].info.run_id if found else None
    run_name = None if known else f"{system}-{dataset.rpartition('/')[2]}"
    with mlflow.start_run(run_id=known, run_name=run_name, tags={TRAINING: name}, log_system_metrics=True) as run:
        if COMMIT not in run.data.tags:  # which come last: a run that was killed before is described now
            mlflow.log_params(params)
            mlflow.log_input(dvc_dataset(dataset), context="training")
            commit = git("rev-parse", "HEAD")
            by = f"by the code of commit `{commit[:10]}`"
            mlflow.set_tags(
                {
                    COMMIT: commit,
                    "git.dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))),
                    MLFLOW_RUN_NOTE: f"A training of `{system}` on `{dataset}`, {by}.",  # publish adds what came of it
                }
            )
        if parent := os.environ.get(PARENT_RUN):
            mlflow.set_tag(MLFLOW_PARENT_RUN_ID, parent)  # of the retraining that goes on with it, where one before was killed
        yield run.info.run_id


def trained_run_id(system: str) -> str | None:
    """Of the run that trained the present checkpoint; None where there is none."""
    path = output("training", system) / "run.json"
    return json.loads(path.read_text())["run_id"] if path.exists() else None


def trained_run(system: str) -> Run:
    """The run that trained the present checkpoint. Raises FileNotFoundError, or LookupError where this store does not know it."""
    run_id = trained_run_id(system)
    if run_id is None:
        raise FileNotFoundError(f"{output('training', system)} is not there yet: `dvc repro train@{system}` makes it")
    try:
        return mlflow.MlflowClient().get_run(run_id)
    except mlflow.MlflowException as error:
        again = f"train again with `dvc repro --force --single-item train@{system}`, or name its store in MLFLOW_TRACKING_URI"
        raise LookupError(f"{system} was trained in run {run_id}, which this MLflow store does not have: {again}") from error


def inputs_of(run: Run) -> list[DatasetInput]:
    """What the run saw."""
    return run.inputs.dataset_inputs if run.inputs else []


def held_out_scores(system: str, metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation by the names they have in MLflow, "test/<system or baseline>/<score>"."""
    rows = {system: metrics["own"]} | metrics["baselines"]
    return {
        f"test/{row}/{name}": value for row, scores in rows.items() for name, value in scores.items() if isinstance(value, float)
    }


class Curves:
    """The curves of one run; points that it has already, as after a resumed training, are not logged again."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.client = mlflow.MlflowClient()
        self.last: dict[str, int] = {}

    def log(self, rows: list[dict[str, float]]) -> None:
        """Rows of `{"step", "time" (seconds since 1970), name: value, …}` in one request."""
        metrics = [
            Metric(name, value, int(row["time"] * 1000), int(row["step"]))
            for row in rows
            for name, value in row.items()
            if name not in ("step", "time") and row["step"] > self._last(name)
        ]
        if metrics:
            self.client.log_batch(self.run_id, metrics=metrics)
            self.last |= {metric.key: metric.step for metric in metrics}

    def _last(self, name: str) -> int:
        if name not in self.last:
            known = self.client.get_metric_history(self.run_id, name)
            self.last[name] = max((point.step for point in known), default=-1)
        return self.last[name]
