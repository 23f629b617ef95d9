"""`python -m flows.train SYSTEM`: the command of DVC's train stages, a Prefect flow that needs no server.

The trainer is a process of its own, so that it can be `torchrun`, can die alone, and needs neither Prefect nor MLflow; this
flow hands it a job, carries its progress to MLflow and, started again after a crash, goes on with the same run. One that failed
is FAILED in MLflow too, with the reason in its tag `failure`; its last good state stays where it was.
"""

import csv
import dataclasses
import hashlib
import importlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import torch
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from data.files import in_place
from flows.server import prefect_api
from flows.tracking import Curves, dvc_hash, training_run
from models.trainer import FAILURE, PROGRESS, SUMMARY, Job, read_progress
from stages.engine import code_version, own_group
from stages.params import output, trained_params, work

POLL_SECONDS = 2.0
DONE = "done"  # in a training's folder of work
TAG = 5000  # characters that MLflow admits in a tag


class TrainingFailed(RuntimeError):
    """The trainer ended with an error: the reason it gave, or its last words."""


def trainer_command(job: Path) -> list[str]:
    """One process for each GPU that CUDA_VISIBLE_DEVICES leaves visible; one without any, or with one."""
    gpus = torch.cuda.device_count()
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"] if gpus > 1 else []
    return [sys.executable, *torchrun, "-m", "models.trainer", str(job)]


def reason_of(code: int, folder: Path, log: Path) -> str:
    """Why the trainer that worked in `folder` ended with `code`."""
    if (folder / FAILURE).exists():
        return (folder / FAILURE).read_text()
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    if code == -signal.SIGKILL:
        last = f"it was killed, as the system does when memory runs out; started again, it goes on from its last state\n{last}"
    return f"the trainer ended with {code}; {log} says:\n{last}"


def progress_rows(path: Path, trainer: subprocess.Popen[bytes]) -> Iterator[list[dict[str, float]]]:
    """The rows that the trainer adds to `path`, in batches, until it ends."""
    done = 0
    while True:
        ended = trainer.poll() is not None
        rows = read_progress(path)
        if rows[done:]:
            yield rows[done:]
            done = len(rows)
        if ended:
            return
        try:
            trainer.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def before(system: str) -> str | None:
    """DVC's hash of what the last training left, if there was one; so another once DVC has what this one leaves."""
    try:
        return dvc_hash(str(output("training", system)))
    except LookupError:
        return None


@task(cache_policy=NO_CACHE)
def run_trainer(job: Path, folder: Path, run_id: str) -> None:
    """Run the trainer to its end in its own process group; nothing of it outlives this process."""
    logger = get_run_logger()
    log = folder / "trainer.log"
    curves = Curves(run_id)
    with log.open("ab") as words, own_group(trainer_command(job), stdout=words, stderr=subprocess.STDOUT) as trainer:
        for rows in progress_rows(folder / PROGRESS, trainer):
            curves.log(rows)
            logger.info(
                "step %d: %s",
                rows[-1]["step"],
                {k: round(v, 5) for k, v in rows[-1].items() if k not in ("step", "time")},
            )
    if trainer.returncode:
        raise TrainingFailed(reason_of(trainer.returncode, folder, log))


@flow(name="train", flow_run_name="train-{system}")
def train(system: str) -> None:
    """Train one system as `params.yaml` says; leave its checkpoint, its curve and the id of its MLflow run."""
    params = trained_params(system)
    config = importlib.import_module(f"models.{system}.config").Config.from_dict(params.preset, params.overrides)
    shards = output(params.source, params.corpus)
    job = Job(
        system,
        dataclasses.asdict(config),
        str(shards / "train"),
        str(shards / "val"),
        {name: str(folder) for name, folder in params.beside.items()},
        "",
        str(output("checkpoints", system)),
    )
    # What is trained on what, by which code, after what: the same again resumes, anything else starts afresh.
    code = [code_version(module) for module in ("models.trainer", f"models.{system}.training", f"models.{system}.examples")]
    given = [dvc_hash(str(folder)) for folder in (shards, *params.beside.values())]
    content = json.dumps([dataclasses.asdict(job), given, code, before(system)], sort_keys=True)
    folder = work("train", system) / hashlib.sha256(content.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for done in work("train", system).glob(f"*/{DONE}"):
        if done.parent != folder:
            shutil.rmtree(done.parent)
    (folder / "job.json").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(job, work=str(folder))), indent=2))

    described = job.config | {"preset": params.preset, "corpus": params.corpus}
    with training_run(system, folder / "training.json", described, str(shards)) as run_id:
        try:
            run_trainer(folder / "job.json", folder, run_id)
        except TrainingFailed as error:
            mlflow.set_tag("failure", str(error)[:TAG])
            raise
        if "failure" in mlflow.get_run(run_id).data.tags:  # of an attempt before this one
            mlflow.delete_tag("failure")
        rows = read_progress(folder / PROGRESS)
        with in_place(output("training", system)) as out:
            summary = json.loads((folder / SUMMARY).read_text())
            (out / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
            with (out / "curve.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["step", "train_loss", "val_loss"], extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
            (out / "run.json").write_text(json.dumps({"run_id": run_id}) + "\n")
        mlflow.log_metrics({f"final/{name}": value for name, value in summary.items()})
        mlflow.log_artifacts(str(output("checkpoints", system)), "checkpoint")
    (folder / DONE).touch()  # not removed yet: DVC, killed before it has what was made, runs this again


if __name__ == "__main__":
    with prefect_api():
        train(sys.argv[1])
