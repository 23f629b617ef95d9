"""What a system makes, judged and shown: `frames.py` for videos painted over, `portraits.py` for videos made whole, `meshes.py`
for faces of points in motion.

Each is a module with

    MEMBER                          of the generated shard set, a .npy file
    HEADINGS                        name of each score to its heading in the report
    NOTE                            how its scores are to be read, for the report
    told(metrics)                   one sentence for the report
    scores(clip, fake, raw)         a row of scores of one clip, beside its own truth
    difference(clip, one, other)    how far two that were made from other noise are from each other
    baselines(clips, train)         what needs no training of this system: name to one made clip for each of `clips`
    sheet(clips, made, raw)         one picture that shows the first clip, real and as each sampler made it
    film(clip, fake, raw, params)   the video of one clip, real beside made, with its sound, and its contact sheet

where `raw` is the folder of the corpus's native files. The system's package says which it needs: `MAKES = "frames"`,
`"portraits"` or `"meshes"`.
"""

import importlib
from types import ModuleType


def makes(system: str) -> str:
    """What `system` makes."""
    return importlib.import_module(f"models.{system}").MAKES


def judge_of(system: str) -> ModuleType:
    """The judge of what `system` makes."""
    return importlib.import_module(f"stages.judges.{makes(system)}")
