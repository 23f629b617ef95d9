"""The 478 face points of every aligned frame, in its own pixels."""

from dataclasses import dataclass

from data.shardset import Clip, Column, Skipped, npy_array, npy_bytes
from stages.columns import make_column
from stages.faces import carried, fill_gaps, longest_gap, seen


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
    filled_TP3 = fill_gaps(source_TP3, found_T)
    return {"landmarks.npy": npy_bytes(carried(filled_TP3, npy_array(clip.members["transform.npy"])))}


def run(part: str) -> None:
    make_column("landmarks", find_landmarks, LandmarkParams, part, reads=["align"], needs="source_landmarks.npy")
