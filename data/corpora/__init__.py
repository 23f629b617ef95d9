"""One adapter per corpus: from a corpus's native layout to clips.

An adapter is a module of this folder with

    clips(raw, manifest)   every clip that stands in `raw`, made by `source_clip`, and a `Refused` for each that cannot be used
    prepare(raw)           optional: native archives and pickles to files per clip, once all sources are there
    videos(raw)            optional: the web videos that the corpus's annotations name
"""

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from data.manifest import Manifest
from data.shardset import KEY, Clip, json_bytes


@dataclass(frozen=True)
class Refused:
    """A clip that the corpus names but that cannot be used; the reason is short and common to such clips."""

    key: str
    reason: str
    detail: str = ""

    def __post_init__(self):
        if not KEY.fullmatch(self.key):
            raise ValueError(f"unsafe clip key {self.key!r}: make it with `safe_key`")


@dataclass(frozen=True)
class Video:
    """A web video that becomes `raw/videos/<name>.mp4`. height: of its picture, in pixels; None for the best there is."""

    name: str
    url: str
    height: int | None


class UnsafeFile(ValueError):
    """A file of the corpus stands outside of its folder, as behind a symbolic link."""


def adapter(manifest: Manifest) -> ModuleType:
    """The module that knows the corpus's layout."""
    return importlib.import_module(f"data.corpora.{manifest.adapter}")


def corpus_clips(manifest: Manifest, raw: Path) -> Iterator[Clip | Refused]:
    """Every clip of the corpus whose native files stand in `raw`; those that the manifest knows to be bad are refused."""
    for found in adapter(manifest).clips(raw, manifest):
        bad = manifest.known_bad.get(found.key) or manifest.known_bad.get(found.key.partition("/")[2])
        yield Refused(found.key, "known to be bad", bad) if bad else found


def safe_key(speaker: str, name: str) -> str:
    """A clip's key from any two words; what a key cannot hold is replaced, and a hash keeps such words apart."""
    return f"{_safe(speaker, 80)}/{_safe(name, 75)}"


def _safe(word: str, longest: int) -> str:
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", word)
    if safe != word or not 0 < len(safe) <= longest or safe.startswith("__"):
        digest = hashlib.sha256(word.encode(errors="surrogateescape")).hexdigest()[:8]
        safe = f"{safe.lstrip('_')[: longest - 9]}_{digest}".lstrip("_")
    return safe


def source_clip(
    key: str,
    raw: Path,
    file: str,
    start: float = 0.0,
    end: float | None = None,
    beside: Mapping[str, str] | None = None,
    **about: Any,
) -> Clip:
    """A clip that is still a file: `start` to `end` seconds (None: to its end) of `raw / file`.

    beside: further files of `raw` that belong to it, such as {"vertices": "vertices_npy/F2_e01.npy"}.
    about: what the corpus knows of it (`transcript`, `emotion`, …).
    The sha256 of a file stands in for its content, so that work done on it is found again only while it is the same.
    Raises FileNotFoundError and UnsafeFile.
    """
    path, sha256 = _known(key, raw, file)
    others = {name: dict(zip(("path", "sha256"), _known(key, raw, other), strict=True)) for name, other in (beside or {}).items()}
    source = {"path": path, "source": file, "sha256": sha256, "start": start, "end": end, "speaker": key.partition("/")[0]}
    return Clip(key, {"json": json_bytes(source | ({"beside": others} if others else {}) | about)})


def _known(key: str, raw: Path, file: str) -> tuple[str, str]:
    """Path and sha256 of a file of the corpus."""
    path = raw / file
    if not path.exists():
        raise FileNotFoundError(f"clip {key}: {path} is missing: run `dvc repro` for its corpus, or place the file there")
    if not path.resolve().is_relative_to(raw.resolve()):
        raise UnsafeFile(f"clip {key}: {path} leads to {path.resolve()}, outside of its corpus: put the file itself there")
    stat = path.stat()
    return str(path), _sha256(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, modified: int) -> str:
    """Of a file, read once however many clips it holds."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
