"""Frames in the order in which the film shows them, and the film: frames and the voice encoded as they come."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import av
import numpy as np
from av.video.reformatter import Colorspace

from data.media.audio import MAX_DRIFT
from data.media.video import Unusable, converter, decoded, frames_at, opened, start_time, stream_of

Length = Literal["loop", "hold", "trim"]

VOICE_RATE = 48_000  # Hz
VOICE_BLOCK = 1024  # samples, as many as AAC takes at once
END: tuple[float, Any] = math.inf, None  # of the voice
BACKWARDS_BYTES = 2**28  # of the frames decoded ahead when the video is played backwards


def played(source: Path, count: int, fps: int, length: Length) -> Iterator[tuple[int, np.ndarray]]:
    """The first `count` frames of a video, each with its index, and then on without end: held, or forth and back."""
    while True:
        for index, frame in enumerate(islice(frames_at(source, fps), count)):
            yield index, frame
        while length == "hold" or count == 1:
            yield index, frame
        block = max(1, BACKWARDS_BYTES // frame.nbytes)
        for end in range(count - 1, 1, -block):
            start = max(1, end - block)
            frames = list(frames_at(source, fps, start / fps, end / fps))
            yield from reversed(list(zip(range(start, end), frames, strict=True)))


def write_film(
    file: BinaryIO, source: Path | None, frames: Iterable[np.ndarray], fps: int, crf: int, voice: Path, seconds: float
) -> None:
    """An h264 mp4 of `(H, W, 3)` uint8 RGB frames in the colour space of `source`, with the first `seconds` of a voice as AAC.

    source: the video that the frames are of; None if there is none, and the film then does not say its colour space. 4:2:0 chroma
    needs an even height and width: the last row or column of an odd one is left out. The same bytes on every run.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = (length // 2 * 2 for length in first.shape[:2])
    # As in data/media/video.py: all that stable bytes need.
    quality = {"crf": str(crf), "threads": "1", "preset": "superfast", "x264-params": "mbtree=0"}
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=quality)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        matrix = copy_colours(source, stream.codec_context) if source else None
        sound = blocks(voice, seconds)
        time, block = next(sound)
        track = container.add_stream("aac", rate=VOICE_RATE, layout=block.layout.name)
        to_yuv = converter("yuv420p")
        for index, frame in enumerate(chain([first], frames)):
            if source and frame.shape != first.shape:
                raise Unusable(source, "its pictures change their size midway")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(to_yuv(picture, dst_colorspace=matrix)))
            while time < (index + 1) / fps:
                container.mux(track.encode(block))
                time, block = next(sound, END)
        container.mux(stream.encode(None))
        container.mux(track.encode(None))


def copy_colours(source: Path, context: Any) -> Colorspace | None:
    """Gives an encoder the colour tags of a video, so that players read both alike; the matrix to convert with, if it is told."""
    with opened(source) as container:
        tagged = stream_of(container, "video").codec_context
        if tagged.colorspace not in list(Colorspace):  # not told, or RGB
            return None
        context.colorspace, context.color_primaries, context.color_trc = (
            tagged.colorspace,
            tagged.color_primaries,
            tagged.color_trc,
        )
        return Colorspace(tagged.colorspace)


def blocks(voice: Path, seconds: float) -> Iterator[tuple[float, av.AudioFrame]]:
    """The first `seconds` of a file's sound, mono or stereo, each block with its seconds since the zero of the file's clock."""
    with opened(voice) as container:
        stream = stream_of(container, "audio")
        zero = start_time(container)
        layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=VOICE_RATE, frame_size=VOICE_BLOCK)
        position = 0
        for frame in chain(decoded(container, stream, zero), [None]):
            try:
                resampled = resampler.resample(frame)
            except ValueError as error:
                raise Unusable(voice, "its sound changes rate or channels midway", "convert it to .wav first") from error
            for block in resampled:
                due = position if block.time is None else round((block.time - zero) * VOICE_RATE)
                position = due if due - position > MAX_DRIFT * VOICE_RATE else position
                if position >= seconds * VOICE_RATE:
                    return
                block.pts, block.time_base = position, Fraction(1, VOICE_RATE)
                yield position / VOICE_RATE, block
                position += block.samples
