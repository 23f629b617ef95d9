"""One adapter per corpus: from a corpus's native layout to clips.

An adapter is a module of this folder with `clips(raw: Path) -> list[Clip]`; each clip it returns is made by `source_clip`.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Any

from data.shardset import Clip, json_bytes


def corpus_clips(corpus: str, raw: Path) -> list[Clip]:
    """Every clip of `corpus`, whose native files stand in `raw`."""
    return importlib.import_module(f"data.corpora.{corpus}").clips(raw)


def source_clip(key: str, raw: Path, file: str, start: float = 0.0, end: float | None = None, **about: Any) -> Clip:
    """A clip that is still a file: `start` to `end` seconds (None: to its end) of `raw / file`.

    `about` is what the corpus knows of it (`transcript`, `emotion`, …). The file's sha256 stands in for its content, so that
    work done on it is found again only while it is the same.
    """
    path = raw / file
    if not path.exists():
        raise FileNotFoundError(f"clip {key}: {path} is missing: run `dvc repro` for its corpus, or place the file there")
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    speaker = key.partition("/")[0]
    source = {"path": str(path), "source": file, "sha256": sha256, "start": start, "end": end, "speaker": speaker}
    return Clip(key, {"json": json_bytes(source | about)})
