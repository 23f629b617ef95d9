"""HDTF (Zhang et al. 2021): weekly addresses on the web; its authors give, in five text files per set, where the clips are.

WDA_video_url.txt        CarolynMaloney1 https://www.youtube.com/watch?v=1Xn9v3fmLPs     some with further parameters
WDA_annotion_time.txt    CarolynMaloney1.mp4 00:05-01:35 02:00-02:30                     the video's clips 0, 1, …
WDA_crop_wh.txt          CarolynMaloney1_0.mp4 342 591 0 591                             x, width, y, height of clip 0's box
WDA_resolution.txt       CarolynMaloney1.mp4 720                                         height of the picture in which it is so
videos/WDA_CarolynMaloney1.mp4
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import av

from data.corpora import Refused, UnsafeFile, Video, safe_key, source_clip
from data.manifest import Manifest
from data.media.video import MediaError, Unusable, opened, pictures, stream_of
from data.shardset import Clip

SETS = ("RD", "WDA", "WRA")
RANGE = re.compile(r"(\d+):([0-5]\d)-(\d+):([0-5]\d)")
END_TOLERANCE = 1.0  # seconds by which a range, written in whole seconds, may outlast its video

Box = tuple[int, int, int, int]


class WrongAnnotation(ValueError):
    """A line of a text file that is not as its authors wrote them."""


@dataclass(frozen=True)
class Film:
    """A video and its clips. ranges: start and end in seconds. boxes: of some of them, x y width height at `height` pixels."""

    part: str
    name: str
    url: str
    height: int  # 0 if it is not known
    ranges: list[tuple[float, float]]
    boxes: dict[int, Box]

    @property
    def file(self) -> str:
        return f"videos/{self.part}_{self.name}.mp4"

    def trouble(self, index: int) -> tuple[str, str] | None:
        """Why clip `index` cannot be made from any copy of the video: reason and detail."""
        if index not in self.boxes:
            return "no crop box", f"{self.part}_crop_wh.txt has none for {self.name}_{index}"
        if not self.height:
            return "crop box of unknown height", f"{self.part}_resolution.txt has 0 for {self.name}"
        if not _fits(self.boxes[index], 10**6, self.height):
            return "crop box outside of the picture", f"{self.boxes[index]} in a picture {self.height} high"
        return None


def films(raw: Path) -> list[Film]:
    """All videos, with and without clips, as the text files in `raw` have them. Raises WrongAnnotation."""
    return [film for part in SETS for film in _films(raw, part)]


def videos(raw: Path) -> list[Video]:
    """The videos of which a clip can be made, in the height for which their boxes are."""
    return [
        Video(f"{film.part}_{film.name}", film.url, film.height)
        for film in films(raw)
        if any(film.trouble(index) is None for index in range(len(film.ranges)))
    ]


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip | Refused]:
    """Every range of every video, named by its place in the annotation, whichever videos are there.

    `settings`: same_person, for who goes by two names.
    """
    same = manifest.settings.get("same_person", {})
    for film in films(raw):
        person = re.sub(r"\d", "", film.name)
        yield from _clips(film, same.get(person, person), raw)


def _clips(film: Film, person: str, raw: Path) -> Iterator[Clip | Refused]:
    trouble, size, seconds = None, (0, 0), None
    try:
        size, seconds = _probe(raw / film.file)
    except FileNotFoundError:
        trouble = "video not available", f"{raw / film.file} is not there: run the download again, or place it there"
    except Unusable as error:
        trouble = error.reason, f"{film.file}: {error.detail}"
    except MediaError as error:
        trouble = "unreadable file", f"{film.file}: {error.strerror}"
    for index, (start, end) in enumerate(film.ranges):
        key = safe_key(person, f"{film.part}_{film.name}_{index:03d}")
        if why := film.trouble(index) or trouble:
            yield Refused(key, *why)
        elif seconds is not None and end > seconds + END_TOLERANCE:
            yield Refused(key, "video too short", f"{film.file} lasts {seconds:.1f} s, the clip is from {start:g} to {end:g} s")
        elif (box := _scaled(film.boxes[index], film.height, size)) is None:
            what = f"{film.boxes[index]} at {film.height} pixels, in a picture of {size[0]}x{size[1]}"
            yield Refused(key, "crop box outside of the picture", f"{film.file}: {what}")
        else:
            try:
                yield source_clip(key, raw, film.file, start, end, box=box, url=film.url, set=film.part)
            except UnsafeFile:
                yield Refused(key, "unsafe file", f"{film.file} leads outside of {raw}: put the video itself there")


def _probe(path: Path) -> tuple[tuple[int, int], float | None]:
    """Width and height, and seconds if the header tells. Raises Unusable, and PyAV's errors."""
    with opened(path) as container:
        stream = stream_of(container, "video")
        stream_of(container, "audio")
        pictures(path, stream)
        return (stream.width, stream.height), container.duration and container.duration / av.time_base


def _scaled(box: Box, height: int, size: tuple[int, int]) -> list[int] | None:
    """The box in a picture of another `size` than that of `height` it was drawn in; None where it does not fit."""
    x, y, width, tall = (round(value * size[1] / height) for value in box)
    x, y = min(x, max(size[0] - width, x - 1)), min(y, max(size[1] - tall, y - 1))  # what rounding put beyond the edge
    return [x, y, width, tall] if _fits((x, y, width, tall), *size) else None


def _fits(box: Box, width: int, height: int) -> bool:
    x, y, wide, tall = box
    return min(x, y) >= 0 and min(wide, tall) > 0 and x + wide <= width and y + tall <= height


def _films(raw: Path, part: str) -> Iterator[Film]:
    heights = {name: _number(height) for name, height in _table(raw, part, "resolution", 2)}
    ranges = {name: [_range(text) for text in times] for name, *times in _table(raw, part, "annotion_time")}
    boxes: dict[str, dict[int, Box]] = {}
    for clip, *box in _table(raw, part, "crop_wh", 5):
        name, _, index = clip.rpartition("_")
        x, width, y, height = map(_number, box)  # the file's order
        boxes.setdefault(name, {})[_number(index)] = (x, y, width, height)
    for name, url in _table(raw, part, "video_url", 2):
        # What else an address has ("&t=6s") tells a player where to begin.
        video = parse_qs(urlsplit(url).query).get("v", [""])[0]
        if not re.fullmatch(r"[\w-]{11}", video):
            raise WrongAnnotation(f"{raw}/{part}_video_url.txt: {url!a} has no video's id")
        address = f"https://www.youtube.com/watch?v={video}"
        yield Film(part, name, address, heights.get(name, 0), ranges.get(name, []), boxes.get(name, {}))


def _table(raw: Path, part: str, what: str, fields: int | None = None) -> Iterator[list[str]]:
    """The lines of a text file, split, their names without `.mp4`. One file begins with a byte order mark."""
    path = raw / f"{part}_{what}.txt"
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        name, *rest = line.split() or [""]
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.mp4)?", name) or not rest or (fields and len(rest) != fields - 1):
            raise WrongAnnotation(f"{path}, line {number}: {line!a}. Fetch the file again.")
        yield [name.removesuffix(".mp4"), *rest]


def _range(text: str) -> tuple[float, float]:
    found = RANGE.fullmatch(text)
    if found is None:
        raise WrongAnnotation(f"{text!a} is no range of time, such as 00:30-01:00")
    minutes, seconds, end_minutes, end_seconds = map(int, found.groups())
    return 60.0 * minutes + seconds, 60.0 * end_minutes + end_seconds


def _number(text: str) -> int:
    if not text.isdecimal():
        raise WrongAnnotation(f"{text!a} is no number")
    return int(text)
