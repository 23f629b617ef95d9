"""What was fetched, and what is known of the files that stand: the first for people and for DVC, the second to be quick."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.files import atomic_file
from stages.fetch.parts import digest

DOWNLOADED, BY_HAND = "downloaded", "by_hand"


@dataclass(frozen=True)
class FileEntry:
    """A file of the corpus. checksum: the published one that it was compared with, if any.

    validator: the server's word for its version. members: of an archive, which is not kept, its files and their bytes.
    """

    url: str
    status: str
    date: str
    bytes: int
    sha256: str
    checksum: str | None = None
    validator: str | None = None
    members: dict[str, int] | None = None


@dataclass(frozen=True)
class VideoEntry:
    """A web video: what came of it (one of youtube.STATUSES), and why. wanted, height: of its picture, in pixels."""

    url: str
    status: str
    date: str
    detail: str = ""
    wanted: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None


@dataclass
class Record:
    """`data/fetched/<corpus>.json`. licence: its name and page, and when it was accepted, where it must be."""

    path: Path
    licence: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    videos: dict[str, VideoEntry] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Record":
        if not path.exists():
            return cls(path)
        written = json.loads(path.read_bytes())
        return cls(
            path,
            written["licence"],
            {name: FileEntry(**entry) for name, entry in written["files"].items()},
            {name: VideoEntry(**entry) for name, entry in written["videos"].items()},
        )

    def write(self) -> None:
        """Whole or not at all; not if nothing changed."""
        content = {"licence": self.licence, "files": _plain(self.files), "videos": _plain(self.videos)}
        data = json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
        if self.path.exists() and self.path.read_bytes() == data:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write(data)


class Seen:
    """Checksums of files, taken again only when size or time of a file changed.

    path: where they are kept between runs; it may be lost, which costs time and nothing else.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            self._sums: dict[str, Any] = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            self._sums = {}

    def checksum(self, path: Path, kind: str) -> str:
        """Such as "sha256:…", of a file that stands."""
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        known = self._sums.get(str(path))
        if known is None or known["state"] != state:
            known = self._sums[str(path)] = {"state": state}
        if kind not in known:
            with path.open("rb") as file:
                known[kind] = digest(file, kind)
        return f"{kind}:{known[kind]}"

    def remember(self, path: Path, *checksums: str) -> None:
        """Of a file that was hashed as it came."""
        stat = path.stat()
        self._sums[str(path)] = {"state": [stat.st_size, stat.st_mtime_ns]} | dict(sum.split(":") for sum in checksums)

    def write(self) -> None:
        with atomic_file(self._path) as file:
            file.write(json.dumps(self._sums).encode())


def today() -> str:
    """The moment, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(entries: dict[str, Any]) -> dict[str, Any]:
    """As JSON values, without what is not known."""
    return {
        name: {key: value for key, value in asdict(entry).items() if value not in (None, "")} for name, entry in entries.items()
    }
