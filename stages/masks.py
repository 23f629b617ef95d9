"""The box of every frame that a video-editing system regenerates: the lower face, down to the image's edge.

DiffusionVideoEditing (arXiv 2301.04474, §3.2) hides the jaw along with the mouth, or the system learns to read the words
off the jaw and ignores the sound. Its release finds the box anew for every sample of every epoch; it depends on the frame
alone, so it is found once, here.
"""

from dataclasses import dataclass

import numpy as np

from data.mesh import LEFT_SIDE, RIGHT_SIDE
from data.shardset import Clip, Column, Skipped, json_object, npy_array, npy_bytes
from stages.columns import make_column
from stages.faces import fill_gaps


@dataclass(frozen=True)
class MaskParams:
    """`masks` in params.yaml."""

    min_width: int  # pixels; a narrower box (a face in profile) is replaced from its neighbours in time
    min_height: int  # pixels, likewise
    max_replaced: float  # share of such frames above which a clip is left out


def lower_face_boxes(landmarks_TP3: np.ndarray, size: int) -> np.ndarray:
    """`(T, 4)` int16 x0 y0 x1 y1, half open: between the two sides of the face, from their mean height to the lower edge.

    The release joins the two sides by a slanted, rasterised line; its mean height makes the box a rectangle always.
    """
    sides_T22 = np.rint(landmarks_TP3[:, (RIGHT_SIDE, LEFT_SIDE), :2]).clip(0, size - 1)
    top_T = np.rint(landmarks_TP3[:, (RIGHT_SIDE, LEFT_SIDE), 1].mean(axis=1)).clip(0, size - 1)
    left_T, right_T = sides_T22[:, 0, 0], sides_T22[:, 1, 0] + 1
    return np.stack((left_T, top_T, right_T, np.full_like(top_T, size)), axis=1).astype(np.int16)


def find_masks(clip: Clip, params: MaskParams) -> Column | Skipped:
    """One clip's boxes, none of them degenerate."""
    size = json_object(clip.members["json"])["size"]
    boxes_T4 = lower_face_boxes(npy_array(clip.members["landmarks.npy"]), size)
    width_T, height_T = boxes_T4[:, 2] - boxes_T4[:, 0], boxes_T4[:, 3] - boxes_T4[:, 1]
    usable_T = (width_T >= params.min_width) & (height_T >= params.min_height)
    if usable_T.mean() < 1 - params.max_replaced or not usable_T.any():
        return Skipped("face in profile", f"the mask is too small in {(~usable_T).sum()} of {len(usable_T)} frames")
    return {"mask.npy": npy_bytes(np.rint(fill_gaps(boxes_T4.astype(np.float32), usable_T)).astype(np.int16))}


def run(part: str) -> None:
    make_column("masks", find_masks, MaskParams, part, reads=["align", "landmarks"], needs="landmarks.npy")
