"""Output folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.shardset import sync_folder


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
