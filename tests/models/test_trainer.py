"""The trainer, killed and started again, goes on from its last state; its checkpoint is the one generation reads."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from models.trainer import Job, read_progress
from models.video_editing.generate import load
from tests.models.video_editing.corpus import CONFIG, write_corpus

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path) -> Path:
    """A job of 60 steps with a state each 5."""
    train, val = write_corpus(tmp_path / "train", [6, 6]), write_corpus(tmp_path / "val", [4])
    config = dataclasses.asdict(replace(CONFIG, steps=60, val_every=5, log_every=1))
    written = Job("video_editing", config, str(train), str(val), {}, str(tmp_path / "work"), str(tmp_path / "out"))
    path = tmp_path / "job.json"
    path.write_text(json.dumps(dataclasses.asdict(written)))
    return path


def start(job: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "models.trainer", str(job)]
    return subprocess.Popen(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_state(job, tmp_path):
    progress = tmp_path / "work/progress.jsonl"
    first = start(job)
    until = time.monotonic() + 120
    while len(read_progress(progress)) < 14:
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {(row["step"], *sorted(row)): row["time"] for row in read_progress(progress)}
    assert not (tmp_path / "out").exists()

    assert start(job).wait(120) == 0
    rows = read_progress(progress)
    assert [row["step"] for row in rows if "train_loss" in row] == list(range(60))
    kept = [row for row in rows if before.get((row["step"], *sorted(row))) == row["time"]]
    assert len(kept) >= 5, "it began again instead of going on"
    assert load(tmp_path / "out").config.steps == 60
    card = (tmp_path / "out/card.md").read_text()
    assert "steps: 60" in card
    summary = json.loads((tmp_path / "work/summary.json").read_text())
    assert summary["val_loss"] > 0

    # Killed after its last step, before anybody took the result: it finds nothing to do and gives the same.
    (tmp_path / "work/summary.json").unlink()
    assert start(job).wait(120) == 0
    again = json.loads((tmp_path / "work/summary.json").read_text())
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}


@pytest.mark.slow
def test_a_second_training_of_the_same_seed_learns_the_same(job, tmp_path):
    assert start(job).wait(120) == 0
    first = [row.get("train_loss") for row in read_progress(tmp_path / "work/progress.jsonl")]
    for path in (tmp_path / "work").iterdir():
        path.unlink()
    assert start(job).wait(120) == 0
    assert [row.get("train_loss") for row in read_progress(tmp_path / "work/progress.jsonl")] == first
