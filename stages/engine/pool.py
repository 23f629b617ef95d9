"""What every pool does: clips go in by order, are worked on in any order, and come out by order, few of them in memory."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Self, TypeVar

from data.shardset import Clip, Column, Skipped

T = TypeVar("T")


class WorkerCannotStart(Exception):
    """The function, its parameters or the main module cannot be loaded in a new process."""


@dataclass(frozen=True)
class Failed:
    """What went wrong with a clip: the class of the exception or the end of the worker, and its message on one line."""

    reason: str
    detail: str = ""


Outcome = Column | Skipped | Failed


@dataclass
class Task(Generic[T]):
    """A clip on its way through a pool. attempts: how often what worked on it was lost."""

    tag: T
    clip: Clip
    attempts: int = 0
    outcome: Outcome | None = None


class Pool(ABC):
    """Where a clip function runs; leaving its `with` block ends whatever runs there."""

    def map(self, clips: Iterable[tuple[T, Clip]]) -> Generator[tuple[T, str, Outcome], None, None]:
        """The tag, key and outcome of each clip, in the order given.

        At most 2 × size + 2 clips and outcomes are in memory. Raises WorkerCannotStart.
        """
        clips = iter(clips)
        window: deque[Task[T]] = deque()  # in the order given
        queue: deque[Task[T]] = deque()  # those that nobody works on yet
        while True:
            for tag, clip in islice(clips, max(0, 2 * self._size() + 2 - len(window))):
                task = Task(tag, Clip(clip.key, dict(clip.members)))
                window.append(task)
                queue.append(task)
            self._hand_out(queue)
            if not window:
                return
            outcome = window[0].outcome
            if outcome is None:
                self._collect(queue)
            else:
                task = window.popleft()
                yield task.tag, task.clip.key, outcome

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @abstractmethod
    def _size(self) -> int:
        """How many clips can be worked on at once, now."""

    @abstractmethod
    def _hand_out(self, queue: deque[Task[Any]]) -> None:
        """Starts work on the first tasks of the queue, as many as there is room for."""

    @abstractmethod
    def _collect(self, queue: deque[Task[Any]]) -> None:
        """Waits until something has happened to a task; one that is to be tried again goes back to the head of the queue."""
