"""DVC repositories of tiny shell stages, and `talkingface reproduce` in them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.project import ROOT, environment

REPRODUCE = (sys.executable, "-m", "flows.cli", "reproduce")


def repository(folder: Path, stages: dict[str, Any], params: dict[str, Any] | None = None) -> Path:
    """A git and DVC repository whose dvc.yaml holds `stages`; `source` is a file they may depend on."""
    folder.mkdir(parents=True)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / "params.yaml").write_text(yaml.safe_dump(params or {"unused": 0}))
    (folder / "source").write_text("source\n")
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(words, cwd=folder, env=variables(folder), check=True)
    return folder


def variables(folder: Path) -> dict[str, str]:
    """What a shell in the repository has; one Prefect database for all tests, as migrating a new one takes seconds."""
    analytics = {"DVC_NO_ANALYTICS": "1", "CI": "1", "PREFECT_HOME": str(folder.parents[1] / ".prefect"), "SHELL": "/bin/sh"}
    one_gpu = {"CUDA_VISIBLE_DEVICES": "0"}  # as on a machine that has one
    return environment(folder) | analytics | one_gpu | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def dvc(folder: Path, *words: str, check: bool = True) -> str:
    done = subprocess.run(["dvc", *words], cwd=folder, env=variables(folder), capture_output=True, text=True, timeout=600)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reproduce(folder: Path, *options: str, status: int = 0, server: str = "") -> str:
    """What `talkingface reproduce` tells; it has to end with `status`. `server`: a Prefect API, else it starts its own."""
    api = {"PREFECT_API_URL": server} if server else {}
    done = subprocess.run(
        [*REPRODUCE, *options], cwd=folder, env=variables(folder) | api, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def begin(folder: Path, *options: str, server: str = "") -> "subprocess.Popen[str]":
    """`talkingface reproduce`, begun; its lines are in `stdout`. `server` as above."""
    return subprocess.Popen(
        [*REPRODUCE, *options],
        cwd=folder,
        env=variables(folder) | ({"PREFECT_API_URL": server} if server else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a script's background ignores it
    )


def timed(name: str, command: str) -> str:
    """A shell command that leaves when it began and ended in `times`, as "NAME seconds" lines."""
    return f"echo {name} $(date +%s.%N) >> times; {command} && echo {name} $(date +%s.%N) >> times"


def times(folder: Path) -> dict[str, tuple[float, float]]:
    """When each timed stage began and ended the last time, in seconds."""
    rows = [line.split() for line in (folder / "times").read_text().splitlines()]
    return {name: tuple(float(second) for other, second in rows if other == name)[-2:] for name, _ in rows}  # type: ignore[misc]


def lock(folder: Path) -> str:
    return (folder / "dvc.lock").read_text()


def descendants(pid: int, count: int) -> list[psutil.Process]:
    """All processes below `pid`, as soon as there are `count`."""
    until = time.monotonic() + 30
    while len(found := psutil.Process(pid).children(recursive=True)) < count:
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found
