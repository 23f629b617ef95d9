"""What a command that makes a film tells while it works, on stderr."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def bars() -> Progress:
    """Bars that are drawn while the block lasts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def told(progress: Progress, what: str, things: Iterable[T], total: int) -> Iterator[T]:
    """`things` as they come, counted by a bar. total: how many there are, as far as is known."""
    task = progress.add_task(what, total=total)
    done = 0
    for done, thing in enumerate(things, 1):
        yield thing
        progress.update(task, completed=done)
    progress.update(task, total=done)
