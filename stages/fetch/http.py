"""One downloader for all servers: it resumes, waits when asked to, checks, and ends with the right bytes or a clear error.

What it holds servers to: RFC 9110 §13.1.5 (If-Range), §14.4 (Content-Range), §15.5.17 (416), §10.2.3 (Retry-After).
"""

import errno
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from stages.fetch import DownloadError, headers
from stages.fetch.connections import Connections, by_hand, login_refused, shown
from stages.fetch.parts import CHUNK, HEAD, Again, Fetched, Part, Remote, WebPage, WrongContent, may_be_page
from stages.fetch.progress import FetchProgress, amount, duration

THREADS = 8
RESERVE = 100_000_000  # bytes that stay free on the disk
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
FAILURES_IN_A_ROW = 5  # of files: then the server is down, or wants us gone


@dataclass(frozen=True)
class Patience:
    """How long a downloader goes on.

    tries: in a row, of which none brings `step` bytes more than were ever there. most_tries: of one file in all.
    Waits double from `first_wait_s` to `longest_wait_s`, with jitter. A server that asks for more than `longest_asked_s` ends it.
    slowest: bytes/s; a connection below that for `read_s` counts as broken.
    """

    tries: int = 8
    step: int = 1 << 20
    most_tries: int = 1000
    first_wait_s: float = 1
    longest_wait_s: float = 60
    longest_asked_s: float = 900
    connect_s: float = 20
    read_s: float = 60
    slowest: float = 100


PATIENCE = Patience()


class Downloader:
    """Fetches files, several at a time, at most two from one host.

    work: folder for the beginnings of files, on the file system of their targets.
    sleep, now, chance: instead of a sleep that ends when the downloader does, time.time, and random.random.
    """

    def __init__(
        self,
        work: Path,
        patience: Patience = PATIENCE,
        sleep: Callable[[float], object] | None = None,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ):
        work.mkdir(parents=True, exist_ok=True)
        self._work, self._patience, self._now, self._chance = work, patience, now, chance
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._connections = Connections(patience.connect_s, patience.read_s)

    def fetch_all(self, remotes: Sequence[Remote], progress: FetchProgress, fetched: Callable[[Remote, Fetched], None]) -> None:
        """Calls `fetched`, in this thread, for each file that came; it may refuse it with DownloadError.

        One failure does not keep the other files from being tried; many in a row do. DownloadError tells of all.
        """
        failures: list[str] = []
        came = in_a_row = 0
        with ThreadPoolExecutor(THREADS) as pool:
            waiting = {pool.submit(self.fetch, remote, progress): remote for remote in remotes}
            try:
                for future in as_completed(waiting):
                    try:
                        fetched(waiting[future], future.result())
                        came, in_a_row = came + 1, 0
                    except DownloadError as error:
                        failures.append(str(error))
                        in_a_row += 1
                        if in_a_row == FAILURES_IN_A_ROW:
                            break
            finally:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                self._stopped.clear()
        if failures:
            told = failures[:FAILURES_IN_A_ROW]
            more = len(remotes) - came - len(told)
            raise DownloadError("\n".join(told + ([f"{more} more files failed or were not tried"] if more else [])))

    def fetch(self, remote: Remote, progress: FetchProgress) -> Fetched:
        """The file at `remote.target`, whole and as it is known to be. Raises DownloadError; what came is kept."""
        remote.target.parent.mkdir(parents=True, exist_ok=True)
        if self._work.stat().st_dev != remote.target.parent.stat().st_dev:
            raise DownloadError(
                f"{self._work} and {remote.target.parent} are on two file systems, and a file moves whole only within one: "
                "keep all of data/ together"
            )
        try:
            with Part(self._work, remote, progress) as part:
                self._complete(remote, part)
                fetched = part.publish()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DownloadError(f"{remote.name}: the disk is full. Make room, then run again: what came is kept.") from None
        progress.finished_file()
        return fetched

    def _complete(self, remote: Remote, part: Part) -> None:
        """Tries until the part is whole and right, or patience ends."""
        longest = in_a_row = wrong = 0
        trouble = Again("not tried")
        for _ in range(self._patience.most_tries):
            try:
                self._try(remote, part)
                part.check()
                return
            except WrongContent as failure:
                if isinstance(failure, WebPage) and remote.form:
                    raise login_refused(remote) from None
                trouble = failure
                part.begin(None, None)
                wrong += 1
            except Again as failure:
                trouble = failure
            if part.size >= longest + self._patience.step:
                longest, in_a_row = part.size, 0
            in_a_row += 1
            if wrong == 2 or in_a_row >= self._patience.tries:
                break
            self._wait(remote, trouble.wait_s, in_a_row)
        where = shown(remote.url)
        if wrong == 2:
            raise DownloadError(
                f"{remote.name}: {trouble} (twice, from {where}). Look at that page: it may ask for a login or a licence, or "
                f"tell of a new version, which the manifest must then name. Or {by_hand(remote)}."
            )
        raise DownloadError(f"{remote.name}: {trouble} ({where}). Wait, or check the network, then run again: what came is kept.")

    def _wait(self, remote: Remote, asked_s: float | None, times: int) -> None:
        if asked_s is not None and asked_s > self._patience.longest_asked_s:
            host = urlsplit(remote.url).hostname
            raise DownloadError(f"{remote.name}: {host} asks to wait {duration(asked_s)}; run again then: what came is kept")
        backoff = min(self._patience.first_wait_s * 2 ** (times - 1), self._patience.longest_wait_s)
        self._sleep(backoff * (0.5 + self._chance() / 2) if asked_s is None else asked_s)

    def _try(self, remote: Remote, part: Part) -> None:
        """One request; returns when the part seems whole. Raises Again, DownloadError."""
        if part.size != part.total:
            self._request(remote, part)
        if remote.checksum is None and remote.bytes is None and remote.holds is None:
            self._make_sure(remote, part)

    def _request(self, remote: Remote, part: Part) -> None:
        self._check_stopped(remote)
        rest = {"Range": f"bytes={part.size}-", "If-Range": part.validator} if part.size and part.validator else {}
        with self._connections.open(remote, rest) as response:
            if response.status_code == 200:
                self._check_whole(remote, response)
                part.begin(headers.validator(response), headers.length(response))
            elif response.status_code == 206 and rest:
                self._check_rest(remote, part, response)
            elif response.status_code == 416 and rest and headers.content_range(response) == (None, None, part.size):
                part.total = part.size
                return
            elif response.status_code == 416 and rest:
                part.begin(None, None)
                raise Again("the server has less of it than came before: it changed")
            else:
                raise self._refusal(remote, response)
            self._check_room(remote, (part.total or part.size) - part.size)
            self._receive(remote, part, response)
            chunked = "chunked" in response.headers.get("Transfer-Encoding", "")
        whole = part.total if part.total is not None else remote.bytes
        if whole is not None and part.size < whole:
            raise Again(f"the connection ended after {part.size} of {whole} bytes")
        if whole is None and not chunked and remote.checksum is None and remote.holds is None:
            # Then a connection that breaks looks like a body that ends.
            where = shown(remote.url)
            raise DownloadError(f"{remote.name}: {where} does not say how long it is: its manifest must give its checksum")

    def _receive(self, remote: Remote, part: Part, response: requests.Response) -> None:
        since, had = time.monotonic(), part.size
        most = part.total if part.total is not None else remote.bytes
        checked_head = False
        for chunk in _chunks(response):
            self._check_stopped(remote)
            before = part.size
            part.append(chunk)
            if most is not None and part.size > most:
                raise WrongContent(f"more came than the {most} bytes that it has")
            if part.size >= HEAD and not checked_head:
                part.check_head()
                checked_head = True
            if most is None and part.size // RESERVE > before // RESERVE:
                self._check_room(remote, 0)
            now = time.monotonic()
            if now - since > self._patience.read_s:
                if part.size - had < self._patience.slowest * (now - since):
                    raise Again("the connection all but stands still")
                since, had = now, part.size

    def _make_sure(self, remote: Remote, part: Part) -> None:
        """Of a file of which nothing is known beforehand, ask whether it really ends where the server said."""
        if part.total is None:
            return
        with self._connections.open(remote, {"Range": f"bytes={part.size}-"}) as response:
            if response.status_code in TEMPORARY:
                raise self._refusal(remote, response)
            ends = response.status_code == 416 and headers.content_range(response) == (None, None, part.size)
            whole = response.status_code == 200 and headers.length(response) == part.size
        if not ends and not whole:
            part.begin(None, None)
            raise Again("the server gives two answers about its length")

    def _check_whole(self, remote: Remote, response: requests.Response) -> None:
        """What the headers of a whole file say must agree with what is known of it."""
        if headers.is_page(response) and not may_be_page(remote):
            raise WebPage()
        said = headers.length(response)
        if remote.bytes is not None and said not in (None, remote.bytes):
            raise WrongContent(f"it has {said} bytes on the server and should have {remote.bytes}")
        if response.headers.get("Content-Encoding", "identity") != "identity" and not remote.name.endswith((".gz", ".tgz")):
            raise WrongContent("the server compresses it, though asked not to")

    def _check_rest(self, remote: Remote, part: Part, response: requests.Response) -> None:
        """An answer 206 must bring the rest of the same file, from the very byte that is missing."""
        first, last, total = headers.content_range(response)
        known = part.total if part.total is not None else remote.bytes
        fits = first == part.size and last is not None and headers.length(response) in (None, last - first + 1)
        if last is not None and total is not None:
            fits = fits and last < total and known in (None, total)
        if not fits or headers.differ(headers.validator(response), part.validator):
            part.begin(None, None)
            raise Again("the server sent another part of it than was asked for")
        part.total = total if total is not None else part.total

    def _refusal(self, remote: Remote, response: requests.Response) -> Exception:
        status, where = response.status_code, shown(remote.url)
        if status in TEMPORARY:
            return Again(f"the server answers {status}", headers.retry_after(response, self._now()))
        if status < 400:
            return Again(f"the server answers {status}, which was not asked for")
        if status in (401, 403) and remote.form:
            return login_refused(remote)
        return DownloadError(
            f"{remote.name}: the server answers {status} to {where}. Has it moved, or is a login or a licence before it? Its "
            f"manifest must give an address that works; or {by_hand(remote)}."
        )

    def _check_room(self, remote: Remote, needed: int) -> None:
        free = shutil.disk_usage(self._work).free
        if free < needed + RESERVE:
            raise DownloadError(
                f"{remote.name}: {amount(needed)} are to come, and {amount(free)} are free in {self._work}. Make room, then run "
                "again: what came is kept."
            )

    def _check_stopped(self, remote: Remote) -> None:
        if self._stopped.is_set():
            raise DownloadError(f"{remote.name}: not fetched, since the download ended before; what came is kept")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes, so that nothing is lost when it breaks off; not decoded."""
    try:
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk
    except urllib3.exceptions.HTTPError:
        raise Again("the connection broke") from None
