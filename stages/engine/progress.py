"""One line about a running stage: a bar on a terminal, else a plain line now and then; and one line when it is done."""

import sys
import time
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from data.shardset import LeftOut

SECONDS_BETWEEN_LINES = 10


class Progress:
    """Counts clips of a stage and tells of it on stderr."""

    def __init__(self, stage: str, total: int):
        self._stage, self._total = stage, total
        self._done = self._recalled = 0
        self._started = self._last_line = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(stage, total=total)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def computed(self) -> None:
        self._advance(1)

    def recalled(self, clips: int) -> None:
        self._recalled += clips
        self._advance(clips)

    def finished(self, clips_out: int, left_out: Iterable[LeftOut]) -> None:
        left_out = list(left_out)
        recalled = f" ({self._recalled} from an earlier run)" if self._recalled else ""
        outcomes = f"{clips_out} out, {summary(left_out, 'filtered')}, {summary(left_out, 'failed')}"
        self._say(f"{self._total} clips in{recalled}, {outcomes}, {self._rate():.1f} clips/s")

    def _advance(self, clips: int) -> None:
        self._done += clips
        self._bar.advance(self._task, clips)
        if self._bar.disable and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._say(f"{self._done} of {self._total} clips, {self._rate():.1f} clips/s")

    def _rate(self) -> float:
        return (self._done - self._recalled) / max(time.monotonic() - self._started, 1e-9)

    def _say(self, what: str) -> None:
        self._bar.stop()
        print(f"{self._stage}: {what}", file=sys.stderr, flush=True)


def summary(left_out: Iterable[LeftOut], state: str) -> str:
    """Such as "3 filtered (2 no face, 1 too short)"; with one reason only its name."""
    reasons = Counter(one.reason for one in left_out if one.state == state)
    if len(reasons) < 2:
        named = "".join(f" ({reason})" for reason in reasons)
    else:
        named = " (" + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) + ")"
    return f"{reasons.total()} {state}{named}"
