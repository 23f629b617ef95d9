"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` complete and on the disk, or, after an error or a kill, not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside the folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def in_place(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that becomes `out` when the block ends well, and is removed when it does not."""
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield making
        replace_folder(making, out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def replace_folder(new: Path, out: Path) -> None:
    """Renames `new` to `out`, replacing a folder of that name; they must be on one file system."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        os.rename(out, old)
    os.rename(new, out)
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)
