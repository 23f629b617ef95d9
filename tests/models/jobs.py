"""Jobs for the trainer in processes of their own: tiny trainings of real systems."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from models.given import Given
from models.trainer import Job

ROOT = Path(__file__).parents[2]


def write_job(folder: Path, system: str, config: Any, given: Given) -> Path:
    """A job file in `folder`, whose work and out are there too."""
    beside = {name: str(path) for name, path in given.beside.items()}
    written = Job(
        system, dataclasses.asdict(config), str(given.train), str(given.val), beside, str(folder / "work"), str(folder / "out")
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text(json.dumps(dataclasses.asdict(written)))
    return path


def start(job: Path, *launcher: str) -> "subprocess.Popen[str]":
    """The trainer, by itself or by `launcher`, words between python's and its own."""
    words = [sys.executable, *launcher, "-m", "models.trainer", str(job)]
    return subprocess.Popen(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
