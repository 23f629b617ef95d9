"""Video files to frames and back, by time.

Frames are `(H, W, 3)` uint8 RGB, upright and with square pixels, as a player shows them. A source of any frame rate, constant
or not, is read *by time*: target frame i shows what a viewer sees at i / fps seconds after the start, so nothing drifts
against the sound (relabelling 29.97 fps frames as 25 fps, as released preprocessing does, stretches time by a fifth).
"""

import io
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter

MediaError = av.error.FFmpegError

MAX_PIXELS = 2**26  # of one picture; twice 8K. A header may claim 10^9, and a decoder would believe it
MAX_STILL = 60.0  # seconds that one picture, or silence, may stand in for what the time stamps leave out

SAME = 1e-6  # seconds within which two moments are one: a picture that appears at the very moment that is due is on

# A start farther off than this is sought. Only where an index tells the decoder where to begin: .mpg, .flv, .avi have none
# that can be relied on, and are decoded from their beginning.
FAR = 10.0
SEEKABLE = ("mov", "matroska")
# Seconds before the start at which a sought decoder begins: longer than pictures are reordered, or a sound codec remembers.
LEAD = 1.0

MAX_SLIPS = 12  # pictures in a row that may be stamped one frame off before their stamps are believed; four or five are


class Unusable(ValueError):
    """A file that cannot be used; `reason` in words common to such files, `detail` of this one."""

    def __init__(self, source: Path, reason: str, detail: str = ""):
        super().__init__(f"{source}: {reason}" + (f" ({detail})" if detail else ""))
        self.reason, self.detail = reason, detail


class NoStream(Unusable):
    """The file has no stream of the wanted kind, or nothing in it."""


def frames_at(source: Path, fps: float, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """Frames of `source` at `fps`, between `start` and `end` seconds of its own clock, each `(H, W, 3)` uint8 RGB.

    Target frame i is the source frame on screen at the middle of its interval, `start + (i + 1/2) / fps`. The clock's zero
    is the container's start, which sound shares (an .mpg begins at 0.5 s, and sound and picture begin at different stamps).
    The last source frame is held for its own duration. Raises `Unusable` (as `NoStream`), or PyAV's error for a file that
    can't be decoded.
    """
    with opened(source) as container:
        stream = stream_of(container, "video")
        stream.thread_type = "NONE"  # the process pool fills the cores
        picture = pictures(source, stream)
        origin = start_time(container)
        index, shown, until = 0, None, None
        for time, frame in stamped(container, stream, origin + start):
            since, until = start if until is None else until, time - origin
            if min(until, end or until) - max(since, start) > MAX_STILL:
                raise Unusable(source, "broken time stamps", f"no picture for {MAX_STILL:g} s before {until:.0f} s")
            # Everything due before this frame appears is shown by the one before it (the first also covers a late start).
            while (due := start + (index + 0.5) / fps) < until - SAME and (end is None or due < end):
                yield picture(shown if shown is not None else frame)
                index += 1
            if end is not None and due >= end:
                return
            shown = frame
        if shown is None or until is None:
            raise NoStream(source, "no video frame could be decoded")
        until += min(1 / float(stream.average_rate or fps), MAX_STILL)
        while (due := start + (index + 0.5) / fps) < until and (end is None or due < end):
            yield picture(shown)
            index += 1


def duration(source: Path) -> float | None:
    """Seconds that `source` lasts as its header tells it; None where it does not."""
    with opened(source) as container:
        return None if container.duration is None else container.duration / av.time_base


def opened(source: Path) -> av.container.InputContainer:
    """The file, opened for reading; old files have titles in encodings that nobody recorded."""
    return av.open(str(source), "r", metadata_errors="replace")


def stream_of(container: av.container.InputContainer, kind: Literal["video", "audio"]) -> Any:
    """The file's first stream of a kind. Raises `NoStream`, or `Unusable` for one that no decoder knows."""
    streams = container.streams.video if kind == "video" else container.streams.audio
    if not streams:
        raise NoStream(Path(container.name), f"no {kind} stream")
    if streams[0].codec_context is None:
        raise Unusable(Path(container.name), f"unknown {kind} codec")
    return streams[0]


def decoded(container: av.container.InputContainer, stream: Any, since: float) -> Iterator[Any]:
    """The frames of one stream (of `stream_of`), at least from the one that is on at `since` seconds of its time stamps.

    Sound is sought only where its stamps tell samples apart: Matroska's milliseconds do not.
    """
    exact = stream.type == "video" or stream.time_base * stream.rate <= 1
    if since - start_time(container) > FAR and exact and container.format.name.split(",")[0] in SEEKABLE:
        container.seek(int((since - LEAD) / stream.time_base), stream=stream)
        frames: Iterator[Any] = container.decode(stream)
        first = next(frames, None)
        if first is not None and first.time is not None and first.time <= since:
            yield from chain([first], frames)
            return
        container.seek(0)  # the file's index led astray: begin again at its beginning
    try:
        yield from container.decode(stream)
    except IndexError as error:  # PyAV 18 knows the streams of the beginning alone; an .flv or .mpg may begin one later
        raise Unusable(Path(container.name), "streams that begin midway") from error


def stamped(container: av.container.InputContainer, stream: Any, since: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Each decoded picture that has a time stamp, with it in seconds.

    FFmpeg stamps a picture of an .mpg whose start code lies across two packets, and some that follow, one frame off. In this
    container pictures come at one rate, so what is one frame off for a moment is taken for what it is.
    """
    frame_s = 1 / float(stream.average_rate) if stream.average_rate and container.format.name == "mpeg" else None
    due, slips = None, 0
    for frame in decoded(container, stream, since):
        if frame.time is None:
            continue
        time = frame.time
        if frame_s and due is not None and 0.9 < abs(time - due) / frame_s < 1.1 and slips < MAX_SLIPS:
            time, slips = due, slips + 1
        else:
            slips = 0
        due = time + (frame_s or 0.0)
        yield time, frame


def pictures(source: Path, stream: av.video.stream.VideoStream) -> Callable[[av.VideoFrame], np.ndarray]:
    """Decoded frames of `stream` to RGB arrays as a player shows them. Raises `Unusable` for pictures too large to decode."""
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # for what a later picture claims
    aspect = float(stream.sample_aspect_ratio or 1)
    width, height = round(stream.width * aspect), stream.height
    if not 0 < width * height <= MAX_PIXELS or not 0.1 < aspect < 10:  # FFmpeg reads what it cannot believe as 0x0
        raise Unusable(source, "impossible picture size", f"{stream.width}x{stream.height}, pixel aspect {aspect:g}")
    to_rgb = converter("rgb24")

    def picture(frame: av.VideoFrame) -> np.ndarray:
        if aspect != 1:
            frame = to_rgb(frame, width=round(frame.width * aspect), height=frame.height)
        upright = np.rot90(to_rgb(frame).to_ndarray(), round(frame.rotation / 90))
        return np.ascontiguousarray(upright)

    return picture


def converter(pixels: str) -> Callable[..., av.VideoFrame]:
    """Frames to the pixel format `pixels`, by one thread: a fifth of what PyAV takes when it sets up anew for each frame."""
    return partial(VideoReformatter().reformat, format=pixels, threads=1)


def start_time(container: av.container.InputContainer) -> float:
    """Seconds at which the container's clock starts, the common zero of its pictures and its sound."""
    return (container.start_time or 0) / av.time_base


def encode_frames(frames: Iterable[np.ndarray], fps: int, crf: int, sound: tuple[np.ndarray, int] | None = None) -> bytes:
    """`(H, W, 3)` uint8 RGB frames, one in memory at a time, to an h264 mp4 that browsers play, the same bytes on every run.

    `crf` is x264's quality, 0 (lossless) to 51. `sound` is `(samples float32 mono in [-1, 1], rate in Hz)`, stored as AAC.
    An odd height or width is refused, as 4:2:0 chroma needs both even.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
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
        for frame in chain([first], frames):
            container.mux(video.encode(to_yuv(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))))
        container.mux(video.encode(None))
        if audio and sound:
            samples = av.AudioFrame.from_ndarray(sound[0].astype(np.float32)[None], format="fltp", layout="mono")
            samples.sample_rate = sound[1]
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return buffer.getvalue()


def each_frame(data: bytes) -> Iterator[np.ndarray]:
    """The frames of an encoded video, `(H, W, 3)` uint8 RGB, one in memory at a time, untouched by time stamps."""
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].thread_type = "NONE"
        to_rgb = converter("rgb24")
        for frame in container.decode(video=0):
            yield to_rgb(frame).to_ndarray()


def decode_frames(data: bytes) -> np.ndarray:
    """Every frame of an encoded video as `(T, H, W, 3)` uint8 RGB, untouched by time stamps."""
    return np.stack(list(each_frame(data)))
