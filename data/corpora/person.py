"""Films of your own: each person as one long film, or as a folder of films.

    anna.mp4                     a film of one person, named by it
    anna/kitchen.mov             or several; deeper folders (anna/monday/1.mp4) are taken too
    <speaker>/<clip>.mp4         and so is any corpus that is laid out like this

A film is cut where its speaker pauses, into clips that follow each other without a gap: nothing of it is lost.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

import av
import numpy as np

from data.corpora import Refused, UnsafeFile, safe_key, source_clip
from data.manifest import Manifest, WrongManifest
from data.media.audio import resampled
from data.media.video import MAX_STILL, MediaError, NoStream, Unusable, decoded, opened, pictures, start_time, stream_of
from data.shardset import Clip

FILM = re.compile(r"\.(3gp|avi|flv|m2ts|m4v|mkv|mov|mp4|mpeg|mpg|mts|ogv|ts|webm|wmv)", re.IGNORECASE)
LONGEST_NAME = 60  # letters of a film's name in a clip's

FPS = 25  # cuts fall between the frames that are made of the film
RATE = 16_000  # Hz at which the sound is listened to
PAUSE = 5  # frames of quiet that make a pause


@dataclass(frozen=True)
class Cutting:
    """The manifest's `settings`."""

    shortest: float  # seconds of a clip; a film of no more than `longest` is one clip
    longest: float

    def __post_init__(self):
        if not 0 < 2 * self.shortest <= self.longest:  # else what remains of a film might be too short, or too long
            raise WrongManifest(f"settings: longest ({self.longest}) must be at least twice shortest ({self.shortest})")


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip | Refused]:
    """Every film in `raw`, cut; the names of its clips ascend in time."""
    cutting = Cutting(**manifest.settings)
    paths = [path.relative_to(raw) for path in sorted(raw.rglob("*")) if FILM.fullmatch(path.suffix) and path.is_file()]
    visible = [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts)]
    names = {path: _names(path) for path in visible}
    times = Counter(names.values())
    for path, (speaker, name) in names.items():
        # anna.mp4 beside anna.mov: then a film's name is its whole path.
        yield from _clips(raw, path, speaker, name if times[speaker, name] == 1 else str(path), cutting)


def cut(quiet_N: np.ndarray, shortest: int, longest: int) -> list[int]:
    """Where to cut N frames, of which some are quiet, into stretches of `shortest` to `longest` frames: 0, …, N.

    A cut falls in the middle of the longest quiet that it can reach; where there is none of `PAUSE` frames, as late as it may.
    """
    cuts = [0]
    while (rest := len(quiet_N) - cuts[-1]) > longest:
        latest = min(longest, rest - shortest)
        reach = quiet_N[cuts[-1] + shortest : cuts[-1] + latest]
        edges = np.flatnonzero(np.diff(reach.astype(np.int8), prepend=0, append=0))
        starts, ends = edges[::2], edges[1::2]
        longest_of = int(np.argmax(ends - starts)) if len(starts) else None
        if longest_of is not None and ends[longest_of] - starts[longest_of] >= PAUSE:
            cuts.append(cuts[-1] + shortest + int(starts[longest_of] + ends[longest_of]) // 2)
        else:
            cuts.append(cuts[-1] + latest)
    return [*cuts, len(quiet_N)]


def quiet(power_N: np.ndarray) -> np.ndarray:
    """`(N,)` bool: whether nobody speaks, judged by the mean square of the sound in each frame, `(N,)`.

    The bound lies a third of the way, in dB, from the film's quiet to its speech; noise in which nothing stands out has none.
    """
    level = 10 * np.log10(power_N + 1e-12)
    floor, speech = np.percentile(level, (5, 95))
    floor = max(floor, speech - 45)  # a muted stretch says nothing of the room's noise
    return level < floor + (speech - floor) / 3 if speech - floor > 6 else np.zeros(len(level), bool)


def _names(path: Path) -> tuple[str, str]:
    """Speaker, and the film's name if it is one of several."""
    speaker, *inner = path.with_suffix("").parts
    return speaker, "-".join(inner)


def _clips(raw: Path, path: Path, speaker: str, name: str, cutting: Cutting) -> Iterator[Clip | Refused]:
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
        name = f"{name[: LONGEST_NAME - 9]}_{digest}"
    file = str(path)

    def key(index: int, digits: int = 3) -> str:
        number = f"{index:0{digits}d}"
        return f"{safe_key(speaker, name)}-{number}" if name else safe_key(speaker, number)

    try:
        file.encode()
        cuts = cut(quiet(_power(raw / path)), round(cutting.shortest * FPS), round(cutting.longest * FPS))
        for index, (start, end) in enumerate(pairwise(cuts)):
            yield source_clip(key(index, max(3, len(str(len(cuts))))), raw, file, start / FPS, end / FPS)
    except UnicodeEncodeError:
        yield Refused(key(0), "unsafe file", f"the name {file!a} is not UTF-8: rename it")
    except UnsafeFile:
        yield Refused(key(0), "unsafe file", f"{file!a} leads outside of {raw}: put the film itself there")
    except Unusable as error:
        yield Refused(key(0), error.reason, f"{file!a}: {error.detail}")
    except MediaError as error:
        yield Refused(key(0), "unreadable file", f"{file!a}: {error.strerror}")


def _power(path: Path) -> np.ndarray:
    """`(N,)` float64 mean square of the sound in each 1/25 s of the pictures. Raises Unusable, and PyAV's errors."""
    with opened(path) as container:
        stream_of(container, "audio")
        frames = ceil(round(_seconds(path, container) * FPS, 3))
    power_N = np.zeros(frames)
    with opened(path) as container:
        zero, position = start_time(container), None
        for time, block in resampled(decoded(container, stream_of(container, "audio"), 0.0), RATE):
            if time is not None or position is None:
                position = round(((time or zero) - zero) * RATE)
            frame = (position + np.arange(len(block))) // (RATE // FPS)
            position += len(block)
            inside = (frame >= 0) & (frame < frames)
            np.add.at(power_N, frame[inside], block[inside].astype(np.float64) ** 2)
    if position is None:
        raise NoStream(path, "no sound could be decoded")
    return power_N / (RATE // FPS)


def _seconds(path: Path, container: av.container.InputContainer) -> float:
    """How long the pictures last, by their time stamps."""
    stream = stream_of(container, "video")
    pictures(path, stream)
    zero, last = start_time(container), None
    for packet in container.demux(stream):
        stamp = packet.dts if packet.pts is None else packet.pts
        if packet.size and stamp is not None:
            time = float(stamp * packet.time_base) - zero
            if time - (last or 0.0) > MAX_STILL:
                raise Unusable(path, "broken time stamps", f"no picture for {MAX_STILL:g} s before {time:.0f} s")
            last = max(time, last or 0.0)
    if last is None:
        raise NoStream(path, "no video frame could be decoded")
    return last + 1 / float(stream.average_rate or FPS)
