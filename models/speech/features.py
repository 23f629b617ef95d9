"""Sound of any length to 50 rows a second, each centred on its own fiftieth.

Long sound goes through an encoder in pieces; where two overlap, the one fades into the other, and the ends of both serve as
surroundings alone. Up to the transformer, the pieces of a hub encoder have exactly the rows of the whole; what attention makes
of a row depends on all that is heard with it, so sound longer than a piece has other features in one piece than in several.
"""

from collections.abc import Sequence

import numpy as np

from data.media.audio import fit_length
from models.speech.base import RATE, Encoder, Piece

ROWS_PER_SECOND = 50
HOP = RATE // ROWS_PER_SECOND


def speech_features(encoder: Encoder, sound: np.ndarray, rows: int) -> np.ndarray:
    """`(rows, width)` float32 of mono `sound` at 16 kHz, about [-1, 1]; row i is centred at (i + 1/2) / 50 s.

    The sound is cut, or padded with silence, to the rows' length. ValueError for values that are not finite.
    """
    return batch_features(encoder, [sound], [rows])[0]


def batch_features(encoder: Encoder, sounds: Sequence[np.ndarray], rows: Sequence[int], batch: int = 1) -> list[np.ndarray]:
    """`speech_features` of several sounds, `batch` pieces at once, in the memory of one batch beside the sounds and features.

    On one core a batch saves nothing. A sound's features are the same beside any others, to float32's rounding.
    """
    wholes = [_prepared(encoder, sound, count) for sound, count in zip(sounds, rows, strict=True)]
    own = [np.zeros((_own_rows(encoder, count), encoder.width), np.float32) for count in rows]
    jobs = [(index, *piece) for index in range(len(own)) for piece in _pieces(encoder, len(own[index]))]
    jobs.sort(key=lambda job: len(job[2]), reverse=True)  # pieces of a like length together
    for begin in range(0, len(jobs), batch):
        chosen = jobs[begin : begin + batch]
        heard = encoder.rows([_cut(encoder, wholes[index], first, len(weights)) for index, first, weights in chosen])
        for (index, first, weights), features in zip(chosen, heard, strict=True):
            own[index][first : first + len(weights)] += weights[:, None] * features
    return [_on_the_clock(encoder, features, count) for features, count in zip(own, rows, strict=True)]


def _own_rows(encoder: Encoder, rows: int) -> int:
    """How many rows the encoder has for a sound: those that lie in it, and those of the silence around it."""
    return -(-rows * HOP // encoder.stride) + 2 * _own(encoder, encoder.surround_s) if rows else 0


def _own(encoder: Encoder, seconds: float) -> int:
    return round(seconds * RATE / encoder.stride)


def _prepared(encoder: Encoder, sound: np.ndarray, rows: int) -> Piece:
    """The whole sound, levelled, and padded so that the encoder's own rows are centred at (j + 1/2) strides."""
    if not np.isfinite(sound).all():
        at = int(np.flatnonzero(~np.isfinite(sound))[0])
        raise ValueError(f"sample {at} ({at / RATE:.2f} s) of the sound is {sound[at]}: repair the file, or leave it out")
    sound = fit_length(sound, rows * HOP).astype(np.float32)
    if encoder.levelled and rows:
        deviation = np.sqrt(sound.var(dtype=np.float64) + 1e-7)
        sound = ((sound - sound.mean(dtype=np.float64)) / deviation).astype(np.float32)
    before = (encoder.field - encoder.stride) // 2 + _own(encoder, encoder.surround_s) * encoder.stride
    length = (_own_rows(encoder, rows) - 1) * encoder.stride + encoder.field
    samples = np.pad(sound, (before, length - before - len(sound))) if rows else sound
    return Piece(samples, encoder.moments(samples) if rows else None)


def _pieces(encoder: Encoder, own: int) -> list[tuple[int, np.ndarray]]:
    """First row of each piece, and the weight of each of its rows; over the pieces, the weights of a row add up to 1."""
    if own == 0:
        return []
    piece, overlap, fade = (_own(encoder, seconds) for seconds in (encoder.piece_s, encoder.overlap_s, encoder.fade_s))
    last = max(0, own - piece)  # as long as the others, so that its rows hear as much
    starts = [*range(0, last, piece - overlap), last]
    found = []
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        rows = np.arange(start, min(start + piece, own))
        weights = np.ones(len(rows)) if start == 0 else _risen(rows - start, overlap, fade)
        if following is not None:
            weights -= _risen(rows - following, overlap, fade)
        found.append((start, weights.astype(np.float32)))
    return found


def _risen(rows: np.ndarray, overlap: int, fade: int) -> np.ndarray:
    """How far a piece has faded in, 0 to 1, by rows from its first one."""
    return ((rows - (overlap - fade) // 2 + 1) / (fade + 1)).clip(0, 1)


def _cut(encoder: Encoder, whole: Piece, first: int, rows: int) -> Piece:
    begin = first * encoder.stride
    return Piece(whole.samples[begin : begin + (rows - 1) * encoder.stride + encoder.field], whole.moments)


def _on_the_clock(encoder: Encoder, own: np.ndarray, rows: int) -> np.ndarray:
    """The encoder's own rows, interpolated linearly in time; without silence around a sound, its ends are held."""
    if encoder.stride == HOP and encoder.surround_s == 0:
        return own
    position = (np.arange(rows) + 0.5) * HOP / encoder.stride - 0.5 + _own(encoder, encoder.surround_s)
    position = position.clip(0, max(len(own) - 1, 0))
    low = position.astype(int)
    share = (position - low).astype(np.float32)[:, None]
    return (1 - share) * own[low] + share * own[np.minimum(low + 1, len(own) - 1)]
