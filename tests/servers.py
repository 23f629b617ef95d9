"""A local HTTP server of files in memory or in a folder, which misbehaves as it is told to.

    with FileServer({"s1.zip": data}) as server:
        server.faults["s1.zip"] = [Drop(0.5), Refuse(429, "3")]  # for the first two requests; after them it behaves
        fetch(server.url("s1.zip"))
        assert server.asked[1].first == len(data) // 2

It knows Range, If-Range, ETag and Last-Modified (RFC 9110), so that what is tested against it is the client.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Please log in.</body></html>\n"
LONG_AGO = 1_600_000_000.0
PIECE = 1 << 14


@dataclass
class Served:
    """One version of a file. etag, modified: None where the server says none."""

    data: bytes
    etag: str | None = None
    modified: float | None = None

    @classmethod
    def of(cls, data: bytes) -> "Served":
        return cls(data, f'"{hashlib.md5(data).hexdigest()}"', LONG_AGO)

    def meets(self, condition: str | None) -> bool:
        """Whether an If-Range holds."""
        if condition is None or condition == self.etag:
            return not (condition or "").startswith("W/")
        return (
            "," in condition and self.modified is not None and parsedate_to_datetime(condition).timestamp() == int(self.modified)
        )


@dataclass
class Answer:
    """What the server is about to send of `file`. sent: bytes of body after which the connection breaks; None for all."""

    file: Served
    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None
    wait_s: float = 0.0


Fault = Callable[[Answer], Answer]
"""Spoils an answer."""


@dataclass(frozen=True)
class Drop:
    """The connection breaks after this share of the body."""

    at: float

    def __call__(self, answer: Answer) -> Answer:
        return replace(answer, sent=int(len(answer.body) * self.at))


@dataclass(frozen=True)
class Lie:
    """Content-Length is wrong by so many bytes."""

    by: int

    def __call__(self, answer: Answer) -> Answer:
        length = max(len(answer.body) + self.by, 0)
        return replace(answer, headers=answer.headers | {"Content-Length": str(length)}, sent=len(answer.body))


@dataclass(frozen=True)
class Refuse:
    """An error, such as 429 or 503, with or without a Retry-After."""

    status: int
    retry_after: str | None = None

    def __call__(self, answer: Answer) -> Answer:
        asked = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return Answer(answer.file, self.status, {"Content-Length": "4"} | asked, b"busy")


@dataclass(frozen=True)
class Page:
    """A web page with status 200."""

    content_type: str = "text/html; charset=utf-8"

    def __call__(self, answer: Answer) -> Answer:
        return Answer(answer.file, 200, {"Content-Length": str(len(PAGE)), "Content-Type": self.content_type}, PAGE)


@dataclass(frozen=True)
class Redirect:
    to: str
    status: int = 302

    def __call__(self, answer: Answer) -> Answer:
        return Answer(answer.file, self.status, {"Content-Length": "0", "Location": self.to}, b"")


@dataclass(frozen=True)
class Corrupt:
    """One bit is another."""

    at: float

    def __call__(self, answer: Answer) -> Answer:
        body = bytearray(answer.body)
        if body:
            body[int(len(body) * self.at)] ^= 1
        return replace(answer, body=bytes(body))


@dataclass(frozen=True)
class Change:
    """The connection breaks halfway, and the file is another from then on; if `silent`, with the old ETag and date."""

    data: bytes
    silent: bool = False

    def __call__(self, answer: Answer) -> Answer:
        broken = Drop(0.5)(answer)
        new = Served.of(self.data)
        answer.file.data = new.data
        if not self.silent:
            answer.file.etag, answer.file.modified = new.etag, LONG_AGO + 3600
        return broken


@dataclass(frozen=True)
class WrongRange:
    """A 206 brings another part than was asked for, and says so."""

    shift: int

    def __call__(self, answer: Answer) -> Answer:
        if answer.status != 206:
            return answer
        span, _, total = answer.headers["Content-Range"].removeprefix("bytes ").partition("/")
        first = max(int(span.partition("-")[0]) + self.shift, 0)
        body = answer.file.data[first:]
        said = {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{total}", "Content-Length": str(len(body))}
        return replace(answer, headers=answer.headers | said, body=body)


@dataclass(frozen=True)
class IgnoreRange:
    """The whole file comes, whatever was asked for."""

    def __call__(self, answer: Answer) -> Answer:
        said = {name: value for name, value in answer.headers.items() if name != "Content-Range"}
        return replace(answer, status=200, headers=said | {"Content-Length": str(len(answer.file.data))}, body=answer.file.data)


@dataclass(frozen=True)
class Slow:
    """Nothing comes for a while."""

    seconds: float

    def __call__(self, answer: Answer) -> Answer:
        return replace(answer, wait_s=self.seconds)


@dataclass(frozen=True)
class Say:
    """Other headers; None takes one away. Without Content-Length the end of the connection is that of the file."""

    headers: Mapping[str, str | None]

    def __call__(self, answer: Answer) -> Answer:
        said = {**answer.headers, **self.headers}
        return replace(answer, headers={name: value for name, value in said.items() if value is not None})


@dataclass
class Asked:
    """One request. served: how many bytes of body went out for it."""

    method: str
    name: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    served: int = 0

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}

    @property
    def first(self) -> int:
        """The first byte asked for."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


class FileServer:
    """Serves `files` (path in the address to content), else those below `folder`, on a free port of this machine.

    faults: for each file, one fault for each of its next requests. asked: all requests so far.
    pace_s: pause after each 16 KiB. most_at_once: bodies that were on their way at the same time.
    login: if not empty, fields that a request must post, or a login page comes.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, folder: Path | None = None):
        self._files = {name: Served.of(data) for name, data in (files or {}).items()}
        self._folder = folder
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[Asked] = []
        self.pace_s = 0.0
        self.most_at_once = 0
        self.login: dict[str, str] = {}
        self._on_their_way = 0
        self._lock = threading.Lock()
        self._http = _QuietServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "FileServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def put(self, name: str, served: Served | bytes) -> None:
        """Another file at an address; of bytes the server makes an ETag and gives a date."""
        self._files[name] = Served.of(served) if isinstance(served, bytes) else served

    def url(self, name: str, host: str = "127.0.0.1") -> str:
        """`host` "localhost" is the same server under another name."""
        return f"http://{host}:{self._http.server_port}/{quote(name)}"

    def zenodo(self, record: int, names: list[str]) -> str:
        """Lists files as Zenodo's API does a record; returns what to give as `api`."""
        files = [
            {
                "key": name.rpartition("/")[2],
                "size": len(self._files[name].data),
                "checksum": f"md5:{hashlib.md5(self._files[name].data).hexdigest()}",
                "links": {"self": self.url(name)},
            }
            for name in names
        ]
        self.put(f"api/records/{record}", json.dumps({"id": record, "files": files}).encode())
        return self.url("api")

    def served(self, name: str) -> int:
        """Bytes of a file that went out."""
        return sum(asked.served for asked in self.asked if asked.name == name)

    def _find(self, name: str) -> Served | None:
        if name in self._files or self._folder is None:
            return self._files.get(name)
        path = self._folder / name
        return Served.of(path.read_bytes()) if path.is_file() else None

    def _answer(self, asked: Asked) -> Answer:
        file = self._find(asked.name)
        if file is None:
            return Answer(Served(b""), 404, {"Content-Length": "2"}, b"no")
        if self.login and (asked.method != "POST" or asked.form != self.login):
            return Page()(Answer(file, 200, {}, b""))
        with self._lock:
            waiting = self.faults.get(asked.name, [])
            fault = waiting.pop(0) if waiting else None
            answer = _right_answer(file, asked)
            return fault(answer) if fault else answer

    def _send(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        answer = self._answer(asked)
        asked.status = answer.status
        time.sleep(answer.wait_s)
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if answer.sent is not None or "Content-Length" not in answer.headers:
            handler.close_connection = True
        body = memoryview(answer.body[: answer.sent])
        pieces = [body[start : start + PIECE] for start in range(0, len(body), PIECE)]
        # The last piece does not count: the client may have it, and ask for more, before this thread knows that it went out.
        with self._counted():
            for piece in pieces[:-1]:
                asked.served += handler.wfile.write(piece)
                time.sleep(self.pace_s)
        for piece in pieces[-1:]:
            asked.served += handler.wfile.write(piece)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._on_their_way += 1
            self.most_at_once = max(self.most_at_once, self._on_their_way)
        try:
            yield
        finally:
            with self._lock:
                self._on_their_way -= 1


def _right_answer(file: Served, asked: Asked) -> Answer:
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if file.etag is not None:
        headers["ETag"] = file.etag
    if file.modified is not None:
        headers["Last-Modified"] = formatdate(file.modified, usegmt=True)
    size = len(file.data)
    if "Range" not in asked.headers or not file.meets(asked.headers.get("If-Range")):
        return Answer(file, 200, headers | {"Content-Length": str(size)}, file.data)
    if asked.first >= size:
        return Answer(file, 416, headers | {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, b"")
    body = file.data[asked.first :]
    said = {"Content-Range": f"bytes {asked.first}-{size - 1}/{size}", "Content-Length": str(len(body))}
    return Answer(file, 206, headers | said, body)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no news."""


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            name = unquote(urlsplit(self.path).path).lstrip("/")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, name, dict(self.headers), body)
            server.asked.append(asked)
            server._send(self, asked)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler
