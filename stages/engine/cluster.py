"""A pool over the machines of a Ray cluster: Ray finds a free core for each clip, and the core's own WorkerPool does the rest.

The cluster is the one at RAY_ADDRESS; without that variable, a Ray of this machine alone is started and ended with the pool.
Nodes see this folder under the same path, on a file system that they share, and have the same packages installed.

A Ray worker never runs the clip function itself: it keeps a process for that. So a clip that raises, crashes or hangs costs
the same, and is told in the same words, on a cluster and on one machine. What remains is that a whole node is lost, or a Ray
worker for want of memory: their clips are given to others. When the stage is killed, Ray ends its workers, and with them
their processes; a Ray that was started for the stage ends too, the last of its own helpers within two minutes.
"""

import logging
import os
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any

from data.shardset import Clip
from stages.engine.pool import Failed, Outcome, Pool, Task, WorkerCannotStart
from stages.engine.workers import WorkerPool, available_cores

JOINS = "RAY_ADDRESS" in os.environ
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not JOINS:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Has Ray listen on the loopback interface only, whatever the system, if set before it is imported.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray  # noqa: E402
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayTaskError, WorkerCrashedError  # noqa: E402

# A node goes without its clips' fault, and Ray, short of memory, ends the youngest task, not the largest: an innocent clip
# deserves more than a second chance. But one that takes down every node it is given to must not have them all.
LOSSES = 5


class RayPool(Pool):
    """Runs a clip function on the cores of a cluster: `count` clips at once, or 0 for as many as it has cores, now.

    job: the pickled function and its params. timeout_s: what a clip may take once it has a core.
    """

    def __init__(self, job: bytes, count: int, timeout_s: float):
        self._job = job
        self._count = count
        self._timeout_s = timeout_s
        self._running: dict[ray.ObjectRef, Task[Any]] = {}
        if JOINS:
            ray.init(logging_level=logging.WARNING)
        else:
            cores = count or available_cores()
            ray.init("local", num_cpus=cores, include_dashboard=False, logging_level=logging.WARNING)

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        ray.shutdown()

    def _size(self) -> int:
        return self._count or int(ray.cluster_resources().get("CPU", 0))

    def _hand_out(self, queue: deque[Task[Any]]) -> None:
        """The clip's bytes go to Ray's object store, and leave it with the last reference, when the task is done."""
        while queue and (not self._count or len(self._running) < self._count):
            task = queue.popleft()
            self._running[_perform.remote(self._job, self._timeout_s, Path.cwd(), task.clip)] = task

    def _collect(self, queue: deque[Task[Any]]) -> None:
        (done,), _ = ray.wait(list(self._running))
        task = self._running.pop(done)
        try:
            task.outcome = ray.get(done)
        except RayTaskError as error:
            raise WorkerCannotStart(
                f"{type(error.cause).__name__} on a node of the Ray cluster: {error.cause}\n"
                f"Each node must see {Path.cwd()} and have the packages that are installed here."
            ) from error
        except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError) as error:
            task.attempts += 1
            if task.attempts < LOSSES:
                queue.appendleft(task)
            else:
                task.outcome = Failed(type(error).__name__, f"{LOSSES} Ray workers were lost with this clip")


@ray.remote(num_cpus=1, max_retries=0)
def _perform(job: bytes, timeout_s: float, folder: Path, clip: Clip) -> Outcome:
    """On a node: the outcome of one clip."""
    os.chdir(folder)
    ((_, _, outcome),) = _own_pool(job, timeout_s).map([(None, clip)])
    return outcome


@lru_cache(maxsize=1)
def _own_pool(job: bytes, timeout_s: float) -> WorkerPool:
    """This Ray worker's process, warm from the clip before. It ends when its pipe does: with the cache, or with Ray's worker."""
    return WorkerPool(job, 1, timeout_s)
