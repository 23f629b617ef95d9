"""Unpacks zip and tar archives made by people one does not know: nothing is written outside of a folder, or without end.

Refused by name: absolute paths, `..`, links, devices, control characters, two members of one name, members without end.
Left out: what macOS adds (`__MACOSX`, `.DS_Store`, `._name`).
"""

import filecmp
import gzip
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from stages.fetch import DownloadError
from stages.fetch.progress import amount

CHUNK = 1 << 20
LONGEST_HEADER = 1 << 24  # bytes; tarfile reads a header whole, however long it says it is
# What the libraries raise of bytes that are not as they should be; ValueError where they did not look before they leapt.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
)


class UnsafeArchive(DownloadError):
    """An archive that would write where it must not, or without end."""


class DamagedArchive(DownloadError):
    """An archive that is cut short or altered."""


@dataclass(frozen=True)
class Limits:
    """What an archive may become. ratio: of bytes to its own; `free` bytes are always allowed, more than `most` never."""

    ratio: float = 100
    free: int = 1 << 28
    most: int = 1 << 40
    members: int = 2_000_000

    def bytes(self, archive: Path) -> int:
        return min(self.most, max(self.free, int(self.ratio * archive.stat().st_size)))


LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """A file in an archive. size: in bytes, as its header says."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path, kind: str, target: Path, temporary: Path, ours: Collection[str] = (), limits: Limits = LIMITS
) -> dict[str, int]:
    """Moves the files of a "zip" or "tar" (plain or gzip) into `target`; returns their names below it, and their bytes.

    They are written to the folder `temporary`, on the same file system, and moved when all are there. A file that stands in
    the way stays if it is equal, and is replaced if it is one of `ours`, of an earlier version of the archive.
    Raises UnsafeArchive, DamagedArchive, and DownloadError for a file in the way.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with archive.open("rb") as file:
            members = _zip_members(file, archive) if kind == "zip" else _tar_members(file, archive, limits)
            written = _write(members, archive, temporary, limits)
        _move(written, archive, temporary, target, ours)
    except DAMAGE as error:
        raise DamagedArchive(f"{archive.name} is damaged: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def _write(members: Iterator[Member], archive: Path, folder: Path, limits: Limits) -> dict[str, int]:
    """What a header says of a size is checked before it is believed, and again as the bytes come."""
    allowed, total = limits.bytes(archive), 0
    written: dict[str, int] = {}
    for count, member in enumerate(members):
        if count == limits.members:
            raise UnsafeArchive(f"{archive.name} has more than {limits.members} members: refused")
        name = safe_name(member.name, archive)
        if total + member.size > allowed:
            raise _too_much(archive, member, allowed)
        if member.size > (free := shutil.disk_usage(folder).free):
            raise DownloadError(
                f"{archive.name} unpacks to more than the {amount(free)} that are free. Make room, then run again."
            )
        if name is None:
            total += member.size
            continue
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, (folder / name).open("xb") as file:  # type: ignore[union-attr]
                while chunk := source.read(CHUNK):
                    total += len(chunk)
                    if total > allowed:
                        raise _too_much(archive, member, allowed)
                    file.write(chunk)
                written[name] = file.tell()
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UnsafeArchive(f"{archive.name} has two members that are both {name!r}: refused") from None
        if written[name] != member.size:
            raise DamagedArchive(f"{archive.name} is damaged: {name} has {written[name]} bytes, not {member.size}")
    return written


def _too_much(archive: Path, member: Member, allowed: int) -> UnsafeArchive:
    size = amount(archive.stat().st_size)
    return UnsafeArchive(
        f"{archive.name} ({size}) unpacks to more than {amount(allowed)}, at its member {member.name!r}: refused"
    )


def _move(written: dict[str, int], archive: Path, temporary: Path, target: Path, ours: Collection[str]) -> None:
    os.sync()  # once for all, so that no record names a file that a power cut then takes back
    for name in written:
        there = target / name
        if there.exists() and name not in ours and not filecmp.cmp(there, temporary / name, shallow=False):
            raise DownloadError(f"{there} is in the way of the same file of {archive.name}, which is another: move it elsewhere")
    for name in written:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary / name, target / name)


def safe_name(name: str, archive: Path) -> str | None:
    """The member's path below a folder; None for what is left out. Raises UnsafeArchive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for wrong, what in (
        (not parts, "without a name"),
        (name.startswith("/") or name[1:2] == ":", "which is absolute"),
        (".." in parts, "which leads out of its folder"),
        ("\\" in name, "with a backslash in its name"),
        (any(unicodedata.category(character).startswith("C") for character in name), "with a control character in its name"),
        (any(len(part.encode(errors="surrogateescape")) > 255 for part in parts), "whose name is too long"),
    ):
        if wrong:
            raise UnsafeArchive(f"{archive.name} has a member {name[:300]!r}, {what}: refused")
    if "__MACOSX" in parts or parts[-1] == ".DS_Store" or parts[-1].startswith("._"):
        return None
    return "/".join(parts)


def _zip_members(file: IO[bytes], archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(file) as opened:
        for info in opened.infolist():
            # The name as it was written: the library cuts `filename` at a NUL.
            name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeArchive(f"{archive.name} has a member {name!r}, which is a link or a device: refused")
            if info.flag_bits & 1:
                raise UnsafeArchive(f"{archive.name} has a member {name!r}, which needs a password: refused")
            if not info.is_dir():
                yield Member(name, info.file_size, partial(opened.open, info))


def _tar_members(file: IO[bytes], archive: Path, limits: Limits) -> Iterator[Member]:
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    reader = _Reader(gzip.GzipFile(fileobj=file) if compressed else file)
    with tarfile.TarFile(fileobj=reader) as opened:  # type: ignore[arg-type]
        while (info := opened.next()) is not None:
            opened.members = []  # type: ignore[attr-defined]  # else it keeps every header
            if not info.isreg() and not info.isdir():
                raise UnsafeArchive(f"{archive.name} has a member {info.name!r}, which is a link or a device: refused")
            if info.isreg():
                yield Member(info.name, info.size, partial(opened.extractfile, info))
    # The library takes any end for the end; a tar's own are two blocks of zeros.
    if reader.last != bytes(tarfile.BLOCKSIZE):
        raise DamagedArchive(f"{archive.name} is damaged: it is cut short")
    rest = 0
    while chunk := reader.read(CHUNK):  # to the end, where gzip keeps its checksum
        rest += len(chunk)
        if rest > limits.free:
            raise UnsafeArchive(f"{archive.name} goes on without end after its last member: refused")


class _Reader:
    """A file that hands out no more than a tar's header or a chunk at once. last: what it handed out."""

    def __init__(self, file: Any):
        self._file = file
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self._file.read(size)
        return self.last

    def seek(self, position: int) -> int:
        moved: int = self._file.seek(position)
        return moved

    def tell(self) -> int:
        position: int = self._file.tell()
        return position
