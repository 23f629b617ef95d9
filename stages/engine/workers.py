"""Processes that run a clip function and may die of it: a clip that kills its worker costs that clip and nothing else.

Why not a ready-made pool: concurrent.futures gives up all clips when one worker dies; the workers of pebble 5.2.3 share
one pipe, so that one killed while it sends its result leaves the others stuck, and an os._exit(0) goes unnoticed (both
measured). Here each worker has a pipe of its own: it is always known which clip a worker holds, and a message torn by
its death is torn for that clip only.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from multiprocessing.connection import Connection, wait
from typing import Any

from data.shardset import Clip, Column, Skipped
from stages.engine.pool import Failed, Outcome, Pool, Task, WorkerCannotStart
from stages.engine.slots import Held, Slots

# A forked worker would inherit locks held by the threads of mediapipe or torch, and the pipes of its siblings.
SPAWN = multiprocessing.get_context("spawn")

# A worker may die of its neighbours: the out-of-memory killer picks the largest process. So a clip has a second chance.
ATTEMPTS = 2

START_TIMEOUT_S = 300  # importing torch and mediapipe from a cold network disk takes minutes

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM")} | {
    "OPENCV_FOR_THREADS_NUM": "1"
}
NOTHING = Held({}, [])  # what a worker holds that needs no core's slot


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool(Pool):
    """Runs a clip function in processes of this machine; a clip may take `timeout_s` seconds.

    job: the pickled function and its params. count: of processes; 0 for as many as there are cores on which no other pool of this
    folder has one: stages side by side share the cores, and what one leaves, another takes. One process it has in any case.
    """

    def __init__(self, job: bytes, count: int, timeout_s: float):
        self._job = job
        self._cores = None if count else Slots({"core": [str(core) for core in range(available_cores())]})
        self._count = count or available_cores()
        self._timeout_s = timeout_s
        self._workers: list[_Worker] = []

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _size(self) -> int:
        return self._count

    def _hand_out(self, queue: deque[Task[Any]]) -> None:
        busy = sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._count, busy + len(queue)) and (core := self._core()) is not None:
            self._workers.append(_Worker(self._job, core))
        for worker in self._workers:
            if queue and worker.ready and worker.task is None:
                worker.give(queue.popleft(), self._timeout_s)

    def _core(self) -> Held | None:
        """For one more worker; None if it has to wait for one, which the first does not."""
        held = self._cores.take({"core": 1}) if self._cores else NOTHING
        return held or (None if self._workers else NOTHING)

    def _collect(self, queue: deque[Task[Any]]) -> None:
        """Waits until a worker has answered, died or run out of time."""
        nearest = min(worker.deadline for worker in self._workers)
        timeout = None if nearest == inf else max(0.0, nearest - time.monotonic())
        answered = wait([worker.pipe for worker in self._workers], timeout)
        for worker in list(self._workers):
            if worker.pipe in answered:
                try:
                    worker.take()
                except (EOFError, OSError):
                    self._bury(worker, queue)
            elif worker.deadline <= time.monotonic():
                self._workers.remove(worker)
                worker.end()
                if worker.task is None:
                    raise WorkerCannotStart(f"a worker was not ready after {START_TIMEOUT_S} s")
                worker.task.outcome = Failed("timeout", f"no result after {self._timeout_s:g} s")

    def _bury(self, worker: "_Worker", queue: deque[Task[Any]]) -> None:
        self._workers.remove(worker)
        how = worker.end(grace_s=5)
        if not worker.ready:
            raise WorkerCannotStart(f"a worker died before its first clip ({how}); what it printed says why")
        task = worker.task
        if task is not None:
            task.attempts += 1
            if task.attempts < ATTEMPTS:
                queue.appendleft(task)
            else:
                task.outcome = Failed(f"worker died: {how}", f"{ATTEMPTS} workers died of this clip")


class _Worker:
    """The supervisor's side of one process: its core, its pipe, the task it holds and when that has to be done."""

    def __init__(self, job: bytes, core: Held):
        self._core = core
        self.pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(theirs, job, os.getpid()), daemon=True)
        with _environment(ONE_THREAD):
            self._process.start()
        theirs.close()
        self.ready = False
        self.task: Task | None = None
        self.deadline = time.monotonic() + START_TIMEOUT_S

    def give(self, task: Task, timeout_s: float) -> None:
        self.task = task
        self.deadline = time.monotonic() + timeout_s
        with suppress(OSError):  # it has died: reading from its pipe will say so
            self.pipe.send(task.clip)

    def take(self) -> None:
        """Receives the sign that it is ready, or the outcome of its task; EOFError or OSError if it has died."""
        outcome = self.pipe.recv()
        if self.task is not None:
            self.task.outcome = outcome
        self.ready, self.task, self.deadline = True, None, inf

    def end(self, grace_s: float = 0) -> str:
        """Kills the process if it has not ended by itself within the grace; how it ended, in words."""
        self._process.join(grace_s)
        self._process.kill()
        self._process.join()
        self.pipe.close()
        self._core.give_back()
        code = self._process.exitcode or 0
        return f"{signal.strsignal(-code)} (signal {-code})" if code < 0 else f"exit code {code}"


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """New processes inherit the variables: libraries read them on import, which is before our code runs there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, job: bytes, parent: int) -> None:
    """The worker's side: answers each clip with its outcome until the parent closes the pipe."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    function, params = pickle.loads(job)
    pipe.send("ready")
    while True:
        try:
            clip = pipe.recv()
        except EOFError:
            return
        pipe.send(_attempt(function, clip, params))


def die_with(parent: int) -> None:
    """Has Linux kill this process when the parent ends in any way, so that no orphan goes on working."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


@contextmanager
def own_group(command: Sequence[str], **given: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in a process group of its own, of which nothing outlives the block, nor this process. `given` goes to Popen."""
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=partial(die_with, os.getpid()), **given)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _attempt(function: Callable[[Clip, Any], Column | Skipped], clip: Clip, params: Any) -> Outcome:
    try:
        result = function(clip, params)
        if not isinstance(result, Skipped):
            _check_column(clip.key, result)
        return result
    except Exception as error:
        message = " ".join(str(error).split())[:500]
        return Failed(type(error).__name__, message.encode(errors="replace").decode())


def _check_column(key: str, column: Any) -> None:
    if not isinstance(column, dict) or not all(isinstance(data, bytes) for data in column.values()):
        raise TypeError("a clip function returns a dict of member suffix to bytes, or Skipped")
    Clip(key, column)  # raises ValueError for a suffix that a shard cannot hold
