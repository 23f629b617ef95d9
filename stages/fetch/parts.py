"""The beginning of a file: it outlives the process, knows which version of what it is, and is hashed as it grows."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from urllib.parse import quote

from data.files import sync_folder
from stages.fetch.progress import FetchProgress

CHUNK = 1 << 18
HEAD = 512  # bytes that tell a web page or an archive from other files
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)", re.IGNORECASE)
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # a zip's first member, or the end of an empty one


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    name: unique among those of a corpus; what messages call it.
    target: where it appears.
    place: where a person would place it by hand.
    bytes, checksum: what it must be ("sha256:…", "md5:…", "git_blob:…"); None where that is not known.
    holds: "zip", "tar" or "json", which show by themselves whether they are whole; None for anything else.
    form: fields to post, each with the name of the environment variable that holds its value.
    page: where one registers or accepts the licence.
    """

    name: str
    url: str
    target: Path
    place: Path
    bytes: int | None = None
    checksum: str | None = None
    holds: str | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    page: str = ""


@dataclass(frozen=True)
class Fetched:
    """What a file turned out to be. validator: the server's word for this version of it (ETag or Last-Modified)."""

    bytes: int
    sha256: str
    validator: str | None


class Again(Exception):
    """This try failed, another may not. wait_s: how long the server asks to wait."""

    def __init__(self, why: str, wait_s: float | None = None):
        super().__init__(why)
        self.wait_s = wait_s


class WrongContent(Again):
    """What came is not the file. It gets one fresh try, no more."""


class WebPage(WrongContent):
    """A page for a person came instead: of a login, a licence or an error."""

    def __init__(self) -> None:
        super().__init__("a web page came instead of it")


class Part:
    """`<name>.part`, beside a `.part.json` that says of which version of which address it is the beginning.

    size: bytes so far. total: how long it will be, None while the server does not say. validator: None if there is none.
    """

    def __init__(self, folder: Path, remote: Remote, progress: FetchProgress):
        self.path = folder / f"{quote(remote.name, safe='')}.part"
        self._about = self.path.with_name(f"{self.path.name}.json")
        self._remote, self._progress = remote, progress
        self._announced = remote.bytes or 0
        self.validator: str | None = None
        self.total: int | None = None

    def __enter__(self) -> "Part":
        self._file = open(self.path, "ab", buffering=0)
        self._start()
        try:
            about = json.loads(self._about.read_bytes())
        except (FileNotFoundError, ValueError):
            about = {}
        if about.get("url") == self._remote.url and about.get("validator"):
            self.validator, self.total = about["validator"], about["total"]
            with self.path.open("rb") as written:
                while chunk := written.read(CHUNK):
                    self._count(chunk)
            self._progress.recalled(self.size)
            self._announce()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _start(self) -> None:
        self.size = 0
        self._hashes = {
            kind: hashlib.new(kind, usedforsecurity=False) for kind in {"sha256", *_kind(self._remote)} - {"git_blob"}
        }

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for digest in self._hashes.values():
            digest.update(chunk)

    def _announce(self) -> None:
        """Tell the progress how much is to come, where the manifest does not."""
        if self._remote.bytes is None:
            self._progress.expect((self.total or 0) - self._announced)
            self._announced = self.total or 0

    def begin(self, validator: str | None, total: int | None) -> None:
        """From the first byte again. The old bytes go first, so that no kill leaves them under a new name."""
        self._progress.recalled(-self.size)
        self._file.truncate(0)
        self._start()
        self.validator, self.total = validator, total
        self._about.write_text(json.dumps({"url": self._remote.url, "validator": validator, "total": total}))
        self._announce()

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._count(chunk)
        self._progress.arrived(len(chunk))

    def check_head(self) -> None:
        """Raise WrongContent if it begins like something else than it should be."""
        with self.path.open("rb") as file:
            head = file.read(HEAD)
        if PAGE.match(head) and not may_be_page(self._remote):
            raise WebPage()
        if self._remote.holds == "zip" and not head.startswith(ZIP):
            raise WrongContent("what came is no zip archive")

    def check(self) -> None:
        """Raise WrongContent unless it is what is known of it."""
        self.check_head()
        if self._remote.bytes not in (None, self.size):
            raise WrongContent(f"it has {self.size} bytes, and should have {self._remote.bytes}")
        for kind in _kind(self._remote):
            with self.path.open("rb") as file:
                found = f"{kind}:{self._hashes[kind].hexdigest() if kind in self._hashes else digest(file, kind)}"
            if found != self._remote.checksum:
                raise WrongContent(f"it has {found} and should have {self._remote.checksum}: it changed, or came damaged")

    def publish(self) -> Fetched:
        """Rename it to its target."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self._remote.target)
        sync_folder(self._remote.target.parent)
        self._about.unlink(missing_ok=True)
        return Fetched(self.size, self._hashes["sha256"].hexdigest(), self.validator)


def digest(file: BufferedReader, kind: str) -> str:
    """Hexadecimal sha256, md5 or git_blob (the name that git gives to a content) of an open file."""
    if kind != "git_blob":
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    blob = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
    while chunk := file.read(CHUNK):
        blob.update(chunk)
    return blob.hexdigest()


def may_be_page(remote: Remote) -> bool:
    return remote.name.lower().endswith((".html", ".htm", ".xhtml"))


def _kind(remote: Remote) -> list[str]:
    """The kind of checksum that is known of it, if any."""
    return [remote.checksum.partition(":")[0]] if remote.checksum else []
