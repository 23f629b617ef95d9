"""The columns that painting systems hear, 50 rows a second: two for each frame of 25 a second.

T  frames     D  numbers in a row
"""

from typing import Literal

import numpy as np

from data.shardset import Clip, npy_array

Audio = Literal["mel", "speech"]
MEL_BANDS = 256  # of the mel column: librosa's, up to 8 kHz
SILENCE: dict[Audio, float] = {"mel": -80.0, "speech": 0.0}  # dB, the floor of the spectrograms; also for rows beyond the ends


def heard_rows(clip: Clip, audio: Audio, width: int, frames: int) -> np.ndarray:
    """The clip's rows (2T, D) float32. ValueError, naming the clip, if they do not fit its frames or the network's width."""
    column, expected = f"{audio}.npy", (2 * frames, width)
    rows_SD = npy_array(clip.members[column])
    if rows_SD.shape != expected:
        remedy = "set audio_width in the system's overrides" if rows_SD.shape[:1] == expected[:1] else "run its stage again"
        raise ValueError(f"clip {clip.key}: {column} has the shape {rows_SD.shape}, not {expected}: {remedy}")
    if not np.isfinite(rows_SD).all():
        raise ValueError(f"clip {clip.key} has a {column} that is not finite: run its stage again")
    return rows_SD.astype(np.float32)


def check_width(rows_SD: np.ndarray, audio: Audio, width: int) -> None:
    """ValueError for rows of bare sound that are not as wide as those that the network was trained on."""
    if rows_SD.shape[1] != width:
        numbers = f"{rows_SD.shape[1]} numbers in a row, and the network was trained on {width}"
        raise ValueError(f"{audio} has {numbers}: set its stage in params.yaml as it was then")


def check_members(clip: Clip, wanted: tuple[str, ...]) -> None:
    """ValueError, naming the clip and the members that it lacks."""
    if missing := [member for member in wanted if member not in clip.members]:
        raise ValueError(f"clip {clip.key} has no {' and no '.join(missing)}: run the stage that makes it")
