"""The catalogue of a corpus: every clip that stands among its native files, and every one that was refused.

Listing once, apart from the work on the clips, has three uses: later stages take disjoint parts of one list; they run
again when the list changes, not when an adapter's code does; and the list is there to be read.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from data.shardset import Clip, LeftOut, json_bytes, json_object
from stages.params import output

CATALOGUE = "clips.json"


@dataclass(frozen=True)
class Catalogue:
    """What is known of a corpus before any of its clips was looked at.

    crop: which of `align.crops` its pictures get; None for a corpus without pictures.
    clips: each still a file, its only member `json`, in order of keys. left_out: those refused.
    """

    crop: str | None
    clips: list[Clip]
    left_out: dict[str, LeftOut]


def write_catalogue(folder: Path, catalogue: Catalogue) -> None:
    clips = {clip.key: json_object(clip.members["json"]) for clip in catalogue.clips}
    left_out = {key: asdict(why) for key, why in catalogue.left_out.items()}
    (folder / CATALOGUE).write_bytes(json_bytes({"crop": catalogue.crop, "clips": clips, "left_out": left_out}))


def read_catalogue(corpus: str) -> Catalogue:
    """What the stage `clips` left for `corpus`; each clip's json says its `crop` too."""
    written = json_object((output("clips", corpus) / CATALOGUE).read_bytes())
    crop = {"crop": written["crop"]}
    clips = [Clip(key, {"json": json_bytes(source | crop)}) for key, source in written["clips"].items()]
    return Catalogue(written["crop"], clips, {key: LeftOut(**why) for key, why in written["left_out"].items()})
