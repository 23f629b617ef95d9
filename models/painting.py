"""What the editor of videos asks of a system that makes frames: `models/<system>/generate.py` has a `Painter`.

The editor finds the face, crops it, reads and writes video; the painter knows its network and what that hears. It is handed a
film run by run, a run being frames that follow each other in time in one shot, and may read ahead in one as far as its batch.

    S  pixels of the aligned crop     D  numbers in a row of the column that it hears
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from models.hearing import Audio


@dataclass(frozen=True)
class Unpainted:
    """One frame of a film before it is painted, in the aligned crop."""

    index: int  # in the film: the frame's noise follows from it and the seed
    real: np.ndarray  # (S, S, 3) uint8, as filmed; what is inside the box says other words and is not to be looked at
    identity: np.ndarray  # (S, S, 3) uint8, the shot's first frame with a face, as filmed; one array for a whole run
    box: np.ndarray  # (4,) int16, x0 y0 x1 y1 of the part to paint, half open
    landmarks: np.ndarray  # (68, 2) float32, pixels of `real`, in the order of data.mesh.LANDMARKS_68
    heard: np.ndarray  # one of Painter.windows


class Painter(Protocol):
    """A trained network that paints the faces of a film, on the GPU if there is one."""

    size: int  # S
    audio: Audio  # which column it hears
    speech_encoder: str  # which of models/speech made that, if it is "speech"

    def __init__(self, checkpoint: Path, sampler: str, steps: int, batch_size: int, seed: int) -> None:
        """sampler, steps, batch_size: as in `evaluate.<system>` of params.yaml; a batch is frames of one run. seed: of the noise.

        Raises BadCheckpoint, and ValueError for a sampling that there is not.
        """

    def windows(self, rows_SD: np.ndarray) -> np.ndarray:
        """`(N, …)` float32: what each of N frames hears, of the column's 2N rows. ValueError for rows of another width."""

    def paint(self, frames: Iterable[Unpainted], before: np.ndarray | None) -> Iterator[np.ndarray]:
        """The face of each of a run's frames, in their order: `(S, S, 3)` uint8, painted inside the box and `real` outside.

        before: the painted face that the run goes on from, of the film's frame before its first one; None where it begins.
        """
