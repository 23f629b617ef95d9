"""The talking face of tests/media.py in the codecs and picture sizes in which corpora come."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from tests.media import RATE, astronaut


@dataclass(frozen=True)
class Format:
    """Container, codecs and rates of a corpus's films."""

    container: str
    video: str
    audio: str
    fps: Fraction
    rate: int  # of the sound, Hz
    layout: str = "mono"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict, hash=False)
    bit_rate: int | None = None  # of the pictures
    sound_bit_rate: int | None = None


@lru_cache(maxsize=4)
def talker(seconds: float, fps: Fraction, width: int, height: int, scale: float = 1.0) -> tuple[np.ndarray, ...]:
    """`(height, width, 3)` uint8 RGB frames of the astronaut talking. scale: of the picture of 360 × 320 in its middle."""
    times = np.arange(round(seconds * fps)) / float(fps)
    matrix = np.float32([[scale, 0, width / 2 - 160 * scale], [0, scale, height / 2 - 180 * scale]])
    return tuple(
        cv2.warpAffine(
            astronaut(time, shift=4 * np.sin(time)),
            matrix,
            (width, height),
            flags=cv2.INTER_AREA,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for time in times
    )


def write_film(path: Path, form: Format, frames: Sequence[np.ndarray], sound: np.ndarray | None) -> Path:
    """A film of these frames with this sound (mono, float32, at 44.1 kHz)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form.container) as container:
        video = container.add_stream(form.video, rate=form.fps, options=form.options)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = form.pixels
        if form.bit_rate:
            video.bit_rate = form.bit_rate
        audio = container.add_stream(form.audio, rate=form.rate, layout=form.layout) if sound is not None else None
        if audio and form.sound_bit_rate:
            audio.bit_rate = form.sound_bit_rate
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        if audio:
            samples = av.AudioFrame.from_ndarray(sound.astype(np.float32)[None], format="fltp", layout="mono")
            samples.sample_rate = RATE
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path
