"""The flow around a training: how many processes it has, and what is left of one that failed."""

import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import mlflow
import psutil
import pytest
import torch
import yaml
from mlflow.entities import Run

from flows.train import reason_of, trainer_command
from models.trainer import FAILURE, STATE
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
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    (found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return found


@pytest.mark.slow
def test_a_training_that_fails_is_failed_in_mlflow_with_its_reason(tmp_path):
    made_ready(tmp_path, learning_rate=1e30)
    flow = start(tmp_path)
    assert "lower learning_rate" in flow.communicate(timeout=600)[1] and flow.returncode
    found = run_in_mlflow(tmp_path)
    assert found.info.status == "FAILED"
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
