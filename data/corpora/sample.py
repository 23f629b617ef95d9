"""The `sample` corpus: seconds of two real speakers, cut into utterances by its manifest."""

from pathlib import Path

from data.corpora import source_clip
from data.manifest import manifest
from data.shardset import Clip


def clips(raw: Path) -> list[Clip]:
    """The manifest's clips, each a stretch of a file in `raw`."""
    return [source_clip(clip["key"], raw, clip["file"], clip["start"], clip["end"]) for clip in manifest("sample")["clips"]]
