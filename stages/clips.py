"""A corpus's native files to its catalogue: what is there, where each clip begins and ends, what cannot be used and why."""

import logging
from pathlib import Path

from data.corpora import Refused, corpus_clips
from data.files import in_place
from data.manifest import Manifest, manifest
from data.shardset import Clip, LeftOut
from stages.catalogue import Catalogue, write_catalogue
from stages.params import output


class NoClips(ValueError):
    """Nothing that the corpus's adapter knows stands in its folder."""


def list_clips(manifest: Manifest, raw: Path) -> Catalogue:
    """The catalogue of the corpus whose native files stand in `raw`. ValueError if two clips have one name."""
    clips: dict[str, Clip] = {}
    left_out: dict[str, LeftOut] = {}
    for found in corpus_clips(manifest, raw):
        if found.key in clips or found.key in left_out:
            raise ValueError(f"{manifest.corpus} has two clips named {found.key}: its adapter must tell them apart")
        if isinstance(found, Refused):
            left_out[found.key] = LeftOut("filtered", "clips", found.reason, found.detail)
        else:
            clips[found.key] = found
    crop = manifest.crop if manifest.pictures else None
    return Catalogue(crop, [clips[key] for key in sorted(clips)], dict(sorted(left_out.items())))


def run(corpus: str) -> None:
    raw = output("download", corpus)
    catalogue = list_clips(manifest(corpus), raw)
    if not catalogue.clips:
        refused = [f"{key}: {why.reason} ({why.detail})" for key, why in catalogue.left_out.items()][:3]
        raise NoClips(
            f"{corpus}: no clip in {raw}. {len(catalogue.left_out)} were refused. {'; '.join(refused)}\n"
            f"data/manifests/{corpus}.yaml says what belongs there."
        )
    with in_place(output("clips", corpus)) as out:
        write_catalogue(out, catalogue)
    logging.getLogger(__name__).info("clips: %d found, %d refused", len(catalogue.clips), len(catalogue.left_out))
