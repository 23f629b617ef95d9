"""Sound: from any container to mono samples on the pictures' clock, and to and from 16-bit wav."""

import io
import wave
from collections.abc import Iterable, Iterator
from itertools import chain
from math import gcd
from pathlib import Path
from typing import Any

import av
import numpy as np

from data.media.video import FAR, MAX_STILL, NoStream, Unusable, decoded, opened, start_time, stream_of

MAX_DRIFT = 0.02  # seconds by which counted samples may part from their time stamps before silence is put in, or sound cut


def samples_at(source: Path, rate: int, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """Mono float32 samples in [-1, 1] of `source` at `rate` Hz, between `start` and `end` seconds of the container's clock.

    Sample 0 is at `start` exactly: silence stands in where the sound begins after the pictures or has a gap, and what
    precedes is cut. Raises `Unusable` (as `NoStream` for a file without sound), or PyAV's error for one that can't be decoded.
    """
    with opened(source) as container:
        stream = stream_of(container, "audio")
        zero = start_time(container) + start
        frames = decoded(container, stream, zero)
        if start > FAR:
            frames = in_phase(frames, float((stream.start_time or 0) * stream.time_base), rate)
        count, limit = 0, None if end is None else round((end - start) * rate)
        blocks: list[np.ndarray] = []
        position: int | None = None  # of the next sample, counted from sample 0
        for time, block in resampled(frames, rate):
            due = position if time is None else round((time - zero) * rate)
            if position is None or (due is not None and abs(due - position) > MAX_DRIFT * rate):
                position = round(-start * rate) if due is None else due
            if limit is not None and position >= limit:
                break
            if position - count > MAX_STILL * rate:
                raise Unusable(source, "broken time stamps", f"no sound for {MAX_STILL:g} s before {position / rate:.0f} s")
            if position > count:
                blocks.append(np.zeros(position - count, np.float32))
                count = position
            blocks.append(block[count - position :])
            count += len(blocks[-1])
            position += len(block)
    if position is None:
        raise NoStream(source, "no sound could be decoded")
    return np.concatenate([*blocks, np.zeros(0, np.float32)])[:limit]


def resampled(frames: Iterable[av.AudioFrame], rate: int) -> Iterator[tuple[float | None, np.ndarray]]:
    """Decoded sound as `(seconds of the first sample, mono float32 samples at `rate`)`, in blocks.

    A stream may change its rate or channels as it goes: each frame says its own.
    """
    resampler: av.AudioResampler | None = None
    kind = None
    for frame in chain(frames, [None]):
        before, kind = kind, frame and (frame.format.name, frame.layout.name, frame.sample_rate)
        blocks: list[av.AudioFrame] = []
        if resampler is not None and kind != before:
            blocks += resampler.resample(None)
        if frame is not None and kind != before:
            # To integers: to floats, FFmpeg mixes stereo as (left + right) / √2, which clipped GRID's louder vowels.
            resampler = av.AudioResampler(format="s32", layout="mono", rate=rate)
        if resampler is not None and frame is not None:
            blocks += resampler.resample(frame)
        yield from ((block.time, (block.to_ndarray()[0] / 2.0**31).astype(np.float32)) for block in blocks)


def in_phase(frames: Iterable[av.AudioFrame], begin: float, rate: int) -> Iterator[av.AudioFrame]:
    """`frames` from a sample that a resampler to `rate`, started at `begin` seconds, would also start a cycle at.

    44.1 kHz to 16 kHz repeats itself after 441 samples; begun elsewhere, the new samples fall between those of the whole file.
    """
    aligned = False
    for frame in frames:
        if not aligned and frame.time is not None:
            cycle = frame.sample_rate // gcd(frame.sample_rate, rate)
            ahead = -round((frame.time - begin) * frame.sample_rate) % cycle
            if ahead >= frame.samples:
                continue
            if ahead:
                frame = without_first(frame, ahead)
            aligned = True
        yield frame


def without_first(frame: Any, count: int) -> av.AudioFrame:
    """The frame less its first `count` samples."""
    samples = frame.to_ndarray()
    channels = 1 if frame.format.is_planar else frame.layout.nb_channels
    rest = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[:, count * channels :]), format=frame.format.name, layout=frame.layout.name
    )
    rest.sample_rate, rest.time_base = frame.sample_rate, frame.time_base
    rest.pts = frame.pts + round(count / frame.sample_rate / frame.time_base)
    return rest


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
