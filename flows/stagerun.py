"""One stage by DVC, `dvc --wait-for-lock repro --single-item`: the only spelling that loses nothing beside others (measured)."""

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flows.forks import Fork, Forks
from stages.engine import die_with
from stages.engine.slots import Held

LAST_WORDS = 15
LOCK_WAIT_S = (1.0, 30.0)  # the first pause before DVC's locks are tried again, and the longest

_RESTORED = re.compile(r"Stage '.+' is cached - skipping run, checking out outputs$")
_PULLED = re.compile(r"Pulling data for stage: '")
_NOT_PULLED = re.compile(r"Unable to pull data for stage: '")
_UNCHANGED = re.compile(r"(Stage )?'.+' didn't change, skipping$|Data and pipelines are up to date\.$")
_OF_DVC = re.compile(
    r"Running stage '.+':$|> |(Generating|Updating) lock file '|Use `dvc push` to send|To track the changes with git, run:$"
    r"|\tgit add |To enable auto staging, run:$|\tdvc config core\.autostage true$|Verifying (data sources|outputs) in |$"
)
_LOCKED = re.compile(r"is busy, it is being blocked by:|^(ERROR: )?Unable to acquire lock\b")


class StageFailed(RuntimeError):
    """A stage ended with an error: its last words."""


class PushFailed(RuntimeError):
    """What was made did not come to the remote: what to do, and DVC's last words."""


class Cancelled(RuntimeError):
    """Somebody ended the run while the stage was at work."""


class Hands:
    """Runs stages, each in a session of its own that ends with this process, however it ends."""

    def __init__(self, tell: Callable[[str], None], forks: Forks, environment: dict[str, str], shared: bool = False) -> None:
        """environment: of the stages, besides this process's. shared: what DVC's default remote has is taken from there."""
        self.tell, self._forks, self._environment, self._shared = tell, forks, environment, shared
        self._cancelled = threading.Event()
        self._running: set[Fork] = set()
        self._lock = threading.Lock()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End what runs and let nothing start any more; returns at once, the stages end within seconds."""
        with self._lock:
            self._cancelled.set()
            for stage in self._running:
                stage.let_go()

    def run(self, name: str, held: Held, threads: int, listen: Callable[[str], None]) -> str:
        """Run one stage; "ran", "restored from cache", "restored from remote" or "unchanged".

        threads: of each of its processes, as OpenMP counts them. Its lines go to `listen` and, with its name, to `tell`. While
        another DVC holds a lock that it needs, it waits. Raises StageFailed or Cancelled.
        """
        pause, longest = LOCK_WAIT_S
        while True:
            code, lines, states = self._repro(name, held, threads, listen)
            if self.cancelled:
                raise Cancelled(f"{name} was ended before it was done")
            if code == 0:
                return states[0] if states else "ran"
            if not any(map(_LOCKED.search, lines)):
                raise StageFailed("\n".join(lines) or f"dvc ended with {code}")
            self.tell(f"{name}: waits for another DVC at work here")
            self._cancelled.wait(pause)
            pause = min(2 * pause, longest)

    def _repro(self, name: str, held: Held, threads: int, listen: Callable[[str], None]) -> tuple[int, list[str], list[str]]:
        stage = self._start(name, held, threads)
        lines: deque[str] = deque(maxlen=LAST_WORDS)
        states: list[str] = []
        try:
            with stage.stdout:
                for line in map(str.rstrip, stage.stdout):
                    if _RESTORED.match(line):
                        states.append("restored from cache")
                    elif _PULLED.match(line):
                        states.append("restored from remote")  # and "unchanged", as it then is
                    elif _NOT_PULLED.match(line):
                        states.clear()
                    elif _UNCHANGED.match(line):
                        states.append("unchanged")
                    elif not _OF_DVC.match(line):
                        lines.append(line)
                        if not _LOCKED.search(line):
                            self.tell(f"{name}: {line}")
                            listen(line)
            return stage.wait(), list(lines), states
        finally:
            with self._lock:
                self._running.discard(stage)
            stage.let_go()

    def _start(self, name: str, held: Held, threads: int) -> Fork:
        environment = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            **self._environment,
        }
        if devices := held.names.get("gpu"):
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        words = ["--wait-for-lock", "repro", "--single-item", *["--pull"] * self._shared, name]
        with self._lock:
            if self.cancelled:
                raise Cancelled(f"{name} was not begun")
            stage = self._forks.begin(words, environment, held.files)  # the slots are taken until nothing of the stage is left
            self._running.add(stage)
        return stage


def push() -> None:
    """Brings what was made here, and the record of what it was made of, to DVC's default remote."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "push", "--run-cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=partial(die_with, os.getpid()),
    )
    if done.returncode:
        words = "\n".join(done.stdout.splitlines()[-LAST_WORDS:])
        raise PushFailed(f"`dvc push --run-cache` did not bring what was made to DVC's default remote:\n{words}")
