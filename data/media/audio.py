"""Sound: from any container to mono samples on the pictures' clock, and to and from 16-bit wav."""

import io
import wave
from pathlib import Path

import av
import numpy as np

from data.media.video import NoStream, start_time


def samples_at(source: Path, rate: int, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """Mono float32 samples in [-1, 1] of `source` at `rate` Hz, between `start` and `end` seconds of the container's clock.

    Sample 0 is at `start` exactly: silence stands in where the sound begins after the pictures, and what precedes is cut.
    Raises `NoStream` for a file without sound.
    """
    with av.open(str(source), "r") as container:
        if not container.streams.audio:
            raise NoStream("no audio stream")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        origin, first, blocks = start_time(container), None, []
        for frame in container.decode(container.streams.audio[0]):
            if first is None and frame.time is not None:
                first = frame.time - origin
            blocks += [block.to_ndarray()[0] for block in resampler.resample(frame)]
        blocks += [block.to_ndarray()[0] for block in resampler.resample(None)]
    if not blocks:
        raise NoStream("no sound could be decoded")
    sound = np.concatenate(blocks)
    lead = round(((first or 0.0) - start) * rate)
    sound = np.pad(sound, (lead, 0)) if lead > 0 else sound[-lead:]
    return sound if end is None else sound[: round((end - start) * rate)]


def fit_length(sound: np.ndarray, length: int) -> np.ndarray:
    """`sound` cut, or padded with silence at the end, to `length` samples."""
    return np.pad(sound[:length], (0, max(0, length - len(sound))))


def wav_bytes(sound: np.ndarray, rate: int) -> bytes:
    """Mono float samples in [-1, 1] to a 16-bit PCM wav file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(sound, -1, 1) * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def wav_samples(data: bytes) -> tuple[np.ndarray, int]:
    """A 16-bit mono wav file to `(float32 samples in [-1, 1], rate in Hz)`."""
    with wave.open(io.BytesIO(data)) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise ValueError(f"expected 16-bit mono, got {file.getnchannels()} channels of {file.getsampwidth()} bytes")
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return sound.astype(np.float32) / 32767, file.getframerate()
