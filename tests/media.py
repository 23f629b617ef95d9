"""Small media made by code: a real face (scikit-image's astronaut, NASA, public domain) whose mouth is moved, with a voice."""

import io
from collections.abc import Iterable
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
    path: Path,
    frames: Iterable[np.ndarray],
    times: list[float],
    sound: np.ndarray | None,
    sound_start: float = 0.0,
    codec: str = "libx264",
    sound_codec: str = "aac",
    options: dict[str, str] | None = None,
    rate: Fraction | None = None,
    rotation: int | None = None,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """A video whose frames have exactly these time stamps (seconds), constant rate or not, to the millisecond.

    rate: frames per second instead, for codecs that know constant rates alone. rotation: degrees anticlockwise by which a player
    turns it. sound: mono, (samples,), or stereo, (2, samples).
    """
    tick = 1 / rate if rate else Fraction(1, 1000)
    packets = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate or 1000, options=options or ({"crf": "10"} if codec == "libx264" else {}))
        stream.pix_fmt, stream.time_base = "yuv420p", tick
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if pixel_aspect is not None:
            stream.sample_aspect_ratio = pixel_aspect
        layout = "stereo" if sound is not None and sound.ndim == 2 else "mono"
        audio = container.add_stream(sound_codec, rate=RATE, layout=layout) if sound is not None else None
        for index, (frame, time) in enumerate(zip(frames, times, strict=True)):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(time / tick), tick
            packets += stream.encode(picture)
        packets += stream.encode(None)
        if audio is not None and sound is not None:
            samples = av.AudioFrame.from_ndarray(np.atleast_2d(sound).astype(np.float32), format="fltp", layout=layout)
            samples.sample_rate, samples.pts, samples.time_base = RATE, round(sound_start * RATE), Fraction(1, RATE)
            resampler = av.AudioResampler(format=audio.format.name, layout=layout, rate=RATE)
            for block in [*resampler.resample(samples), *resampler.resample(None)]:
                packets += audio.encode(block)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def talking(path: Path, seconds: float = 2.0, fps: float = 30.0, faces: int = 1, sound: bool = True) -> Path:
    """The astronaut talking for `seconds`, swaying a little."""
    times = [index / fps for index in range(round(seconds * fps))]
    frames = [astronaut(time, shift=4 * np.sin(time), faces=faces) for time in times]
    return write_video(path, frames, times, voice(seconds) if sound else None)


def as_file(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)
