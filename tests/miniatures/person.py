"""A film of somebody who talks, and pauses, as a camera leaves it: h264 and AAC in an mp4."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from tests.media import RATE, opening
from tests.miniatures.formats import Format, talker, write_film

FORMAT = Format("mp4", "libx264", "aac", Fraction(30), 44_100, options={"crf": "20", "preset": "superfast"})

SECONDS = 30.0
PAUSES = ((6.0, 6.6), (9.3, 9.7), (16.0, 16.8), (22.2, 22.6))  # start and end, seconds


def speech(seconds: float, pauses: Sequence[tuple[float, float]], noise: float = 0.002) -> np.ndarray:
    """Mono float32 at 44.1 kHz: a voice with syllables, silent in its pauses, in a room with noise of that amplitude."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * harmonic * time) / harmonic for harmonic in range(1, 8))
    said = 0.2 * buzz * (0.15 + 0.85 * opening(time))
    for start, end in pauses:
        said[(start <= time) & (time < end)] = 0
    return (said + noise * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def write_person(
    path: Path, seconds: float = SECONDS, pauses: Sequence[tuple[float, float]] = PAUSES, form: Format = FORMAT, **sound: float
) -> Path:
    """One film, whose pictures repeat themselves every two seconds."""
    frames = islice(cycle(talker(2.0, form.fps, 320, 360)), round(seconds * form.fps))
    return write_film(path, form, list(frames), speech(seconds, pauses, **sound))


def write_native(raw: Path) -> Path:
    """What its user puts into `data/raw/person`: a long film, and a folder of two."""
    write_person(raw / "anna.mp4")
    write_person(raw / "ben" / "kitchen.mp4", 5.0, ())
    write_person(raw / "ben" / "monday" / "a walk.MOV", 5.0, ())
    return raw
