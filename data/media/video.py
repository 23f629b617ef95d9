"""Video files to frames and back, by time.

Frames are `(T, H, W, 3)` uint8 RGB. A source of any frame rate, constant or not, is read *by time*: target frame i shows
what a viewer sees at i / fps seconds after the start, so nothing drifts against the sound (relabelling 29.97 fps frames as
25 fps, as released preprocessing does, stretches time by a fifth).
"""

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

MediaError = av.error.FFmpegError


class NoStream(ValueError):
    """The file has no stream of the wanted kind."""


def frames_at(source: Path, fps: int, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """Frames of `source` at `fps`, between `start` and `end` seconds of its own clock, each `(H, W, 3)` uint8 RGB.

    Target frame i is the source frame on screen at the middle of its interval, `start + (i + 1/2) / fps`. The clock's zero
    is the container's start, which sound shares (an .mpg begins at 0.5 s, and sound and picture begin at different stamps).
    The last source frame is held for its own duration. Raises `NoStream`, or PyAV's error for a file that can't be decoded.
    """
    with av.open(str(source), "r") as container:
        if not container.streams.video:
            raise NoStream("no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # the process pool fills the cores
        origin = start_time(container)
        index, shown, until, to_rgb = 0, None, 0.0, converter("rgb24")
        for frame in container.decode(stream):
            if frame.time is None:
                continue
            until = frame.time - origin
            # Everything due before this frame appears is shown by the one before it (the first also covers a late start).
            while (due := start + (index + 0.5) / fps) < until and (end is None or due < end):
                yield to_rgb(shown if shown is not None else frame).to_ndarray()
                index += 1
            if end is not None and due >= end:
                return
            shown = frame
        if shown is None:
            raise NoStream("no video frame could be decoded")
        until += 1 / float(stream.average_rate or fps)
        while (due := start + (index + 0.5) / fps) < until and (end is None or due < end):
            yield to_rgb(shown).to_ndarray()
            index += 1


def converter(pixels: str) -> Callable[[av.VideoFrame], av.VideoFrame]:
    """Frames to the pixel format `pixels`, by one thread: a fifth of what PyAV takes when it sets up anew for each frame."""
    return partial(VideoReformatter().reformat, format=pixels, threads=1)


def start_time(container: av.container.InputContainer) -> float:
    """Seconds at which the container's clock starts, the common zero of its pictures and its sound."""
    return (container.start_time or 0) / av.time_base


def encode_frames(frames: np.ndarray, fps: int, crf: int, sound: tuple[np.ndarray, int] | None = None) -> bytes:
    """`(T, H, W, 3)` uint8 RGB to an h264 mp4 that every browser plays, the same bytes on every run.

    `crf` is x264's quality, 0 (lossless) to 51. `sound` is `(samples float32 mono in [-1, 1], rate in Hz)`, stored as AAC.
    An odd height or width is refused, as 4:2:0 chroma needs both even.
    """
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"h264 needs an even width and height, got {width}x{height}: pad or crop the frames first")
    buffer = io.BytesIO()
    # Stable bytes need all four: one thread, "bitexact" in encoder and muxer (no version, no date), and x264 without its
    # macroblock tree, whose AVX-512 code gave up to 6 different files in 25 encodings of one clip on a busy machine.
    quality = {"crf": str(crf), "threads": "1", "preset": "superfast", "x264-params": "mbtree=0"}
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=Fraction(fps), options=quality)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        audio = container.add_stream("aac", rate=sound[1], layout="mono") if sound else None
        to_yuv = converter("yuv420p")
        for picture in frames:
            container.mux(video.encode(to_yuv(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))))
        container.mux(video.encode(None))
        if audio and sound:
            samples = av.AudioFrame.from_ndarray(sound[0].astype(np.float32)[None], format="fltp", layout="mono")
            samples.sample_rate = sound[1]
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return buffer.getvalue()


def decode_frames(data: bytes) -> np.ndarray:
    """Every frame of an encoded video as `(T, H, W, 3)` uint8 RGB, untouched by time stamps."""
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].thread_type = "NONE"
        to_rgb = converter("rgb24")
        return np.stack([to_rgb(frame).to_ndarray() for frame in container.decode(video=0)])
