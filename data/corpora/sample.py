"""The `sample` corpus: seconds of two real speakers, cut into utterances by its manifest."""

from collections.abc import Iterator
from pathlib import Path

from data.corpora import source_clip
from data.manifest import Manifest
from data.shardset import Clip


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip]:
    """The manifest's clips, each a stretch of a file in `raw`."""
    for clip in manifest.settings["clips"]:
        yield source_clip(clip["key"], raw, clip["file"], clip["start"], clip["end"])
