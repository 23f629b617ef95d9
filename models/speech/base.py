"""What a speech encoder is: convolutions over the waveform, then a transformer over their rows."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATE = 16_000

Moments = tuple[np.ndarray, np.ndarray]
"""Mean and variance over time of each channel, `(C,)` float64."""


class EncoderMissing(RuntimeError):
    """The encoder's files are not on this machine and cannot be fetched, or are not what they should be."""


@dataclass(frozen=True)
class Piece:
    """Float32 samples that go through an encoder at once. moments: of the whole sound, for encoders that normalise by them."""

    samples: np.ndarray
    moments: Moments | None


class Encoder(ABC):
    """Row j is made of `field` samples from sample j · stride on, before attention mixes the rows.

    stride, field: in samples at 16 kHz.
    width: numbers in a row.
    levelled: whether it learned from sound of mean 0 and variance 1.
    piece_s: seconds that it hears at once, at most; of longer sound, pieces.
    overlap_s, fade_s: that neighbouring pieces share, and in the middle of which the one fades into the other.
    surround_s: of silence that it hears before and after a sound.
    """

    stride: int
    field: int
    width: int
    levelled: bool
    piece_s: float
    overlap_s: float
    fade_s: float
    surround_s: float

    def moments(self, samples: np.ndarray) -> Moments | None:
        """What its pieces have to know of the whole sound; None if nothing."""
        return None

    @abstractmethod
    def rows(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        """`((samples − field) // stride + 1, width)` float32 for each piece, whatever the others are."""
