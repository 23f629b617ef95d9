"""The flow around a training: how many processes it has, and what is left of one that failed."""

import fcntl
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import mlflow
import psutil
import pytest
import torch
import yaml
from mlflow.entities import Run

from flows.tracking import dvc_hash, training_run
from flows.train import reason_of, trainer_command
from models.trainer import FAILURE, PROGRESS, STATE, read_progress
from tests.flows import trained
from tests.models.diffspeaker import corpus
from tests.project import ROOT, change_params, environment


@pytest.mark.parametrize("gpus, processes", [(0, None), (1, None), (2, "--nproc-per-node=2"), (8, "--nproc-per-node=8")])
def test_one_process_for_each_gpu(monkeypatch, gpus, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    command = trainer_command(Path("job.json"))
    assert command[-3:] == ["-m", "models.trainer", "job.json"]
    assert ("torch.distributed.run" in command) == (processes is not None) == (processes in command)


def test_why_a_trainer_ended(tmp_path):
    log = tmp_path / "trainer.log"
    log.write_text("\n".join(f"line {number}" for number in range(40)))
    assert reason_of(1, tmp_path, log) == f"the trainer ended with 1; {log} says:\n" + "\n".join(
        f"line {number}" for number in range(25, 40)
    )
    assert "when memory runs out" in reason_of(-signal.SIGKILL, tmp_path, log)
    (tmp_path / FAILURE).write_text("loss is nan at step 3")
    assert reason_of(1, tmp_path, log) == "loss is nan at step 3"


def made_ready(folder: Path, **overrides: float) -> None:
    """`folder` becomes a project in which there is a tiny training to do."""
    shards = folder / "data/shards/sample"
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    corpus.write_corpus(shards / "train", [20, 25, 30])
    corpus.write_corpus(shards / "val", [20])
    outs = [{"path": "data/shards/sample", "md5": "0" * 32 + ".dir"}]
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"shards@sample": {"cmd": "", "outs": outs}}}))
    config = asdict(corpus.SMALL) | {"speakers": list(corpus.SMALL.speakers)} | overrides
    system = {"corpus": "sample", "source": "shards", "preset": "vocaset", "overrides": config}
    change_params(folder, systems={"diffspeaker": system})


def start(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flows.train", "diffspeaker"]
    variables = environment(folder) | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def run_in_mlflow(folder: Path) -> Run:
    store = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (found,) = store.search_runs([one.experiment_id for one in store.search_experiments()])
    return found


def test_a_hash_is_read_when_no_dvc_is_writing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guard = tmp_path / ".dvc/tmp/lock"
    guard.parent.mkdir(parents=True)
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  first: {}\n")  # as far as it is written
    with guard.open("w") as held, ThreadPoolExecutor() as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        asked = pool.submit(dvc_hash, "shards/train")
        with pytest.raises(TimeoutError):
            asked.result(0.2)
        with Path("dvc.lock").open("a") as rest:
            rest.write("  second: {outs: [{path: shards, md5: abc}]}\n")
        held.close()
        assert asked.result(20) == "abc"


def test_a_run_is_gone_on_with_though_a_kill_came_as_it_was_made(tmp_path, monkeypatch):
    trained.copied(tmp_path / "project", monkeypatch)
    started, state = mlflow.start_run, Path("state.json")

    def dying(**words):
        started(**words).__exit__(None, None, None)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow, "start_run", dying)
        with training_run(trained.SYSTEM, state, {}, "data/shards/sample"):
            pytest.fail("it was killed")
    with training_run(trained.SYSTEM, state, {}, "data/shards/sample") as run_id:
        pass
    experiment = mlflow.get_run(run_id).info.experiment_id
    assert len(mlflow.search_runs([experiment], output_format="list")) == 2, "with the one of the project"


@pytest.mark.slow
def test_what_dvc_did_not_get_of_a_training_is_not_trained_again_and_what_it_got_is(tmp_path):
    made_ready(tmp_path)

    def trained_again() -> tuple[str, float]:
        """The run's id, and when its first step was done."""
        flow = start(tmp_path)
        told = flow.communicate(timeout=900)[1]
        assert flow.returncode == 0, told
        run_id = json.loads((tmp_path / "data/training/diffspeaker/run.json").read_text())["run_id"]
        (progress,) = tmp_path.glob(f"data/.work/train/diffspeaker/*/{PROGRESS}")
        return run_id, read_progress(progress)[0]["time"]

    first = trained_again()
    curve = (tmp_path / "data/training/diffspeaker/curve.csv").read_text()
    for folder in ("training", "checkpoints"):
        shutil.rmtree(tmp_path / "data" / folder)  # as DVC does before a stage
    assert trained_again() == first
    assert (tmp_path / "data/training/diffspeaker/curve.csv").read_text() == curve
    assert run_in_mlflow(tmp_path).data.metrics["final/steps"] == corpus.SMALL.steps

    lock = yaml.safe_load((tmp_path / "dvc.lock").read_text())
    lock["stages"]["train@diffspeaker"] = {"cmd": "", "outs": [{"path": "data/training/diffspeaker", "md5": "1" * 32 + ".dir"}]}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert trained_again()[0] != first[0], "whoever asks for another training gets one"


@pytest.mark.slow
def test_a_training_that_fails_is_failed_in_mlflow_with_its_reason(tmp_path):
    made_ready(tmp_path, learning_rate=1e30)
    flow = start(tmp_path)
    assert "lower learning_rate" in flow.communicate(timeout=600)[1] and flow.returncode
    found = run_in_mlflow(tmp_path)
    assert found.info.status == "FAILED"
    with sqlite3.connect(tmp_path / ".prefect/prefect.db") as database:
        last = database.execute("select message from log order by timestamp desc limit 1").fetchone()[0]
    assert last.startswith("Finished in state Failed"), "Prefect has all that was said"
    assert "at step" in found.data.tags["failure"] and "lower learning_rate" in found.data.tags["failure"]
    assert not (tmp_path / "data/checkpoints/diffspeaker").exists()
    assert not list(tmp_path.glob(f"data/.work/train/diffspeaker/*/{STATE}")), "no state was good"


@pytest.mark.slow
def test_a_trainer_that_was_killed_is_failed_until_its_training_is_done(tmp_path):
    made_ready(tmp_path, steps=400)
    flow = start(tmp_path)
    until = time.monotonic() + 600
    while not list(tmp_path.glob(f"data/.work/train/diffspeaker/*/{STATE}")):
        assert flow.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    (trainer,) = (child for child in psutil.Process(flow.pid).children() if "models.trainer" in child.cmdline())
    trainer.kill()
    assert "it was killed" in flow.communicate(timeout=600)[1] and flow.returncode
    failed = run_in_mlflow(tmp_path)
    assert failed.info.status == "FAILED" and "it was killed" in failed.data.tags["failure"]

    flow = start(tmp_path)
    flow.communicate(timeout=600)
    assert flow.returncode == 0
    done = run_in_mlflow(tmp_path)
    assert done.info.run_id == failed.info.run_id
    assert done.info.status == "FINISHED" and "failure" not in done.data.tags
    assert done.data.metrics["final/steps"] == 400
