"""One line about a running download: a bar with the time left on a terminal, else a plain line now and then."""

import math
import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 10


class FetchProgress:
    """Counts files and bytes, from any thread, and tells of them on stderr.

    title: of all of it, such as the corpus. files: how many there are to fetch. bytes: of those whose size is known.
    """

    def __init__(self, title: str, files: int, bytes: int = 0):
        self._title, self._files, self._expected = title, files, bytes
        self._done = self._have = self._arrived = 0
        self._lock = threading.Lock()
        self._started = self._last_line = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(title, total=bytes or None)

    def __enter__(self) -> "FetchProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def expect(self, bytes: int) -> None:
        """So many bytes more (less, if negative) than were known of are to come."""
        with self._lock:
            self._expected += bytes
            self._show()

    def recalled(self, bytes: int) -> None:
        """So many bytes were there already; or, if negative, are lost again."""
        with self._lock:
            self._have += bytes
            self._show()

    def arrived(self, bytes: int) -> None:
        with self._lock:
            self._have += bytes
            self._arrived += bytes
            self._show()

    def finished_file(self) -> None:
        with self._lock:
            self._done += 1
            self._show()

    def _show(self) -> None:
        total = max(self._expected, self._have) or None
        self._bar.update(self._task, completed=self._have, total=total, description=f"{self._title} {self._done}/{self._files}")
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(f"{self._title}: {self._line(now)}", file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        rate = self._arrived / max(now - self._started, 1e-9)
        left = max(self._expected - self._have, 0)
        until = f", {duration(left / rate)} left" if rate and left else ""
        whole = f" of {amount(self._expected)}" if self._expected else ""
        return f"{self._done} of {self._files} files, {amount(self._have)}{whole}, {amount(rate)}/s{until}"


def amount(bytes: float) -> str:
    """Such as "2.4 GB" (10⁹ bytes)."""
    power = min(int(math.log10(max(bytes, 1))) // 3, 4)
    number = bytes / 1000**power
    return f"{number:.{1 if power and number < 100 else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def duration(seconds: float) -> str:
    """Such as "1 h 52 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
