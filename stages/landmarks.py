"""The 478 face points of every aligned frame, in its own pixels."""

from dataclasses import dataclass

import numpy as np

from data.shardset import Clip, Column, Skipped, npy_array, npy_bytes
from stages.columns import make_column
from stages.faces import fill_gaps, longest_gap, seen


@dataclass(frozen=True)
class LandmarkParams:
    """`landmarks` in params.yaml."""

    max_gap: int  # frames without a face in a row that are bridged by interpolation; a clip with more is left out


def find_landmarks(clip: Clip, params: LandmarkParams) -> Column | Skipped:
    """The points that `align` found in the source, carried into the aligned crop: `(T, 478, 3)` float32, pixels."""
    source_TP3 = npy_array(clip.members["source_landmarks.npy"])
    found_T = seen(source_TP3)
    if (gap := longest_gap(found_T)) > params.max_gap:
        return Skipped("face lost", f"for {gap} frames in a row, {params.max_gap} allowed")
    source_TP3 = fill_gaps(source_TP3, found_T)
    transform_T23 = npy_array(clip.members["transform.npy"])
    xy_TP2 = source_TP3[..., :2] @ transform_T23[:, :, :2].transpose(0, 2, 1) + transform_T23[:, None, :, 2]
    scale_T11 = np.hypot(transform_T23[:, 0, 0], transform_T23[:, 1, 0])[:, None, None]
    return {"landmarks.npy": npy_bytes(np.concatenate((xy_TP2, source_TP3[..., 2:] * scale_T11), axis=-1).astype(np.float32))}


def run(corpus: str) -> None:
    make_column("landmarks", find_landmarks, LandmarkParams, corpus, reads=["align"])
