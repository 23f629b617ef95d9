"""Small media made by code: a real face (scikit-image's astronaut, NASA, public domain) whose mouth is moved, with a voice."""

import io
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data

RATE = 44_100


def opening(seconds: np.ndarray) -> np.ndarray:
    """0 (closed) to 1 (open), three times a second."""
    return np.sin(3 * np.pi * seconds) ** 2


def astronaut(seconds: float, shift: float = 0.0, faces: int = 1) -> np.ndarray:
    """`(360, 320, 3)` uint8 RGB: the face at a moment, its lower lip and chin pulled down as the mouth opens."""
    picture = data.astronaut()[:360, 60:380]
    y, x = np.mgrid[:360, :320].astype(np.float32)
    pulled = 10 * opening(np.array(seconds)) * np.exp(-(((x - 162) / 30) ** 2)) / (1 + np.exp((147 - y).clip(-60, 60) / 1.5))
    pulled *= np.exp(-((np.clip(y - 178, 0, None) / 20) ** 2))
    picture = cv2.remap(
        picture,
        x - np.float32(shift),
        (y - pulled).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(np.concatenate([picture] * faces, axis=1))


def voice(seconds: float) -> np.ndarray:
    """Mono float32: a buzz that is loud where the mouth is open."""
    time = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * harmonic * time) / harmonic for harmonic in range(1, 12))
    return (0.2 * buzz * opening(time)).astype(np.float32)


def write_video(
    path: Path, frames: list[np.ndarray], times: list[float], sound: np.ndarray | None, sound_start: float = 0.0
) -> Path:
    """A video whose frames have exactly these time stamps (seconds), constant rate or not."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        audio = container.add_stream("aac", rate=RATE, layout="mono") if sound is not None else None
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if audio is not None and sound is not None:
            samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = RATE, round(sound_start * RATE), Fraction(1, RATE)
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def talking(path: Path, seconds: float = 2.0, fps: float = 30.0, faces: int = 1, sound: bool = True) -> Path:
    """The astronaut talking for `seconds`, swaying a little."""
    times = [index / fps for index in range(round(seconds * fps))]
    frames = [astronaut(time, shift=4 * np.sin(time), faces=faces) for time in times]
    return write_video(path, frames, times, voice(seconds) if sound else None)


def as_file(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)
