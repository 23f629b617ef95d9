"""Web videos, through yt-dlp: whole, with sound, one after another, each with a word on what became of it.

Half of the videos that old corpora name are gone, and servers count how often one asks; so no failure ends a run, and none
is final but those that no later try can change.

yt-dlp has ffmpeg join pictures and sound, which come in two files. Here PyAV does: it is there anyway, holds the same
libraries, and copies the packets as they are. So no program beside Python is needed, and there is one way, not two.
"""

import contextlib
import heapq
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import yt_dlp
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from yt_dlp.cookies import YoutubeDLCookieJar
from yt_dlp.utils import ExtractorError, GeoRestrictedError

from data.corpora import Video
from stages.fetch import DownloadError
from stages.fetch.parts import digest
from stages.fetch.progress import amount
from stages.fetch.record import BY_HAND, DOWNLOADED, VideoEntry, today

COOKIES = "YTDLP_COOKIES_FILE"
SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,150}")
BLOCKED_IN_A_ROW = 5
RETRIES = 10
ROOM = 2_000_000_000  # bytes that a video may need
LONGEST_DETAIL = 300

# What an error's text says of the video; the first that fits. YouTube's own sentences come through yt-dlp as they are.
STATUSES = {
    "rate_limited": r"rate.limited|try again later|HTTP Error 429|too many requests",
    "bot_check": r"not a bot|captcha",
    "age_restricted": r"confirm your age|age.restricted|inappropriate for some users",
    "geo_blocked": r"in your country|from your location|geo.?restrict",
    "private": r"private video|video is private|members.only|channel's members|join this channel|requires payment",
    "no_format": r"format is not available|no video formats|DRM protected|only images are available|has no sound",
    "failed": r"content isn't available|not available on this app",  # seen of videos that are there
    "gone": r"video (is )?(unavailable|not available|no longer available)|isn't available anymore|has been (removed|terminated)"
    r"|copyright|does not exist|HTTP Error (404|410)",
}
FINAL = ("gone", "private")
BLOCKED = ("rate_limited", "bot_check")


@dataclass(frozen=True)
class Pauses:
    """Seconds between requests for what is around a video, and, drawn from a range, before each of its files.

    yt-dlp's own advice (its preset "sleep"); guests get some 300 videos an hour.
    """

    requests: float = 0.75
    least: float = 10
    most: float = 20


PAUSES = Pauses()


def fetch_videos(
    videos: Sequence[Video],
    folder: Path,
    work: Path,
    known: Mapping[str, VideoEntry],
    told: Callable[[str], None],
    pauses: Pauses = PAUSES,
) -> Iterator[tuple[Video, VideoEntry]]:
    """What became of each video, as soon as it is known; those fetched stand in `folder` as `<name>.mp4`.

    known: what earlier runs found. What stands there stays, also if a person put it there; what is gone is not asked for again.
    A server that refuses several in a row is left alone, and the rest waits for another run. DownloadError when the disk is full.
    """
    cookies = _cookies()
    refused = 0
    for video in videos:
        if not SAFE_NAME.fullmatch(video.name):
            raise DownloadError(f"a video is named {video.name[:200]!r}: its adapter must name it of letters, digits, - and _")
        path = folder / f"{video.name}.mp4"
        entry = _without_asking(video, path, known.get(video.name))
        if entry is None and refused == BLOCKED_IN_A_ROW:
            entry = VideoEntry(video.url, "rate_limited", today(), "not asked for: the server refused others", video.height)
        elif entry is None:
            entry = _fetch_video(video, path, work, cookies, told, pauses)
            refused = refused + 1 if entry.status in BLOCKED else 0
        yield video, entry


def _without_asking(video: Video, path: Path, known: VideoEntry | None) -> VideoEntry | None:
    """What is known of a video without the network: that it is there, or that it never will be."""
    if not path.exists():
        return known if known and known.status in FINAL and known.url == video.url else None
    if known and known.bytes == path.stat().st_size:
        return known
    return _entry(video, BY_HAND, path)


def _fetch_video(
    video: Video, path: Path, work: Path, cookies: str | None, told: Callable[[str], None], pauses: Pauses
) -> VideoEntry:
    """One video, at `path`, or why not."""
    work.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(work).free) < ROOM:
        raise DownloadError(f"{path.name}: only {amount(free)} are free in {work}. Make room, then run again: what came is kept.")
    joined = work / f"{video.name}.joined.mp4"
    try:
        with yt_dlp.YoutubeDL(_options(video, work, cookies, told, pauses)) as downloader:
            info = downloader.extract_info(video.url)
        files = [Path(one["filepath"]) for one in info["requested_downloads"]]
        join(files, joined)
    except Exception as error:  # 1,800 extractors raise what they like, and one video must not end the run
        status, detail = classify(error)
        return VideoEntry(video.url, status, today(), detail, video.height)
    os.replace(joined, path)
    for file in files:
        file.unlink(missing_ok=True)
    return _entry(video, DOWNLOADED, path)


def _options(video: Video, work: Path, cookies: str | None, told: Callable[[str], None], pauses: Pauses) -> dict[str, Any]:
    """For yt-dlp. Of the heights there are it takes the one wanted, else the next smaller, else the next larger."""
    return {
        "format": "bv*,ba/b",
        "format_sort": ["height" if video.height is None else f"height:{video.height}", "vcodec:h264", "ext:mp4:m4a"],
        "outtmpl": f"{str(work).replace('%', '%%')}/{video.name}.%(format_id)s.%(ext)s",
        "noplaylist": True,
        "playlist_items": "1",
        "fixup": "never",  # needs ffmpeg, and repairs containers that are not kept
        "skip_unavailable_fragments": False,  # a video with holes is no video
        "socket_timeout": 60,
        "retries": RETRIES,
        "fragment_retries": RETRIES,
        "extractor_retries": 3,
        "retry_sleep_functions": dict.fromkeys(("http", "fragment", "extractor"), lambda n: min(pauses.requests * 2**n, 60)),
        "sleep_interval_requests": pauses.requests,
        "sleep_interval": pauses.least,
        "max_sleep_interval": pauses.most,
        "cookiefile": cookies and io.StringIO(cookies),  # not the file itself, into which yt-dlp would write
        "logger": _Logger(told),
        "noprogress": True,
        "color": "never",
    }


class _Logger:
    """Hands on yt-dlp's warnings, which tell of what it lacks; its errors come as exceptions."""

    def __init__(self, told: Callable[[str], None]):
        self._told = told

    def debug(self, _: str) -> None: ...

    def warning(self, message: str) -> None:
        self._told(f"yt-dlp: {message}")

    def error(self, _: str) -> None: ...


def classify(error: Exception) -> tuple[str, str]:
    """One of STATUSES, and the reason in one line, of an error that yt-dlp or the joining of its files ended in."""
    _, cause, _ = getattr(error, "exc_info", None) or (None, None, None)
    original = cause or error
    text = str(original.orig_msg if isinstance(original, ExtractorError) else original)
    text = " ".join(text.replace("\u2019", "'").split()) or type(original).__name__
    detail = re.split(r" \(caused by | Use --| See +https?:|; please report", text)[0][:LONGEST_DETAIL]
    if isinstance(original, GeoRestrictedError):
        return "geo_blocked", detail
    return next((status for status, said in STATUSES.items() if re.search(said, text, re.IGNORECASE)), "failed"), detail


class NoSound(ValueError):
    """None of a video's files has sound, or none has pictures."""


def join(files: Sequence[Path], out: Path) -> None:
    """An mp4 of the pictures of the first file that has any and the sound of the last, their packets as they are.

    Raises NoSound, av.FFmpegError.
    """
    pictures = [file for file in files if _has(file, "video")]
    sounds = [file for file in files if _has(file, "audio")]
    if not pictures or not sounds:
        raise NoSound(f"it has no {'sound' if pictures else 'pictures'}")
    # Two views of a file that holds both: each gives the packets of one stream.
    with (
        av.open(str(pictures[0])) as pictured,
        av.open(str(sounds[-1])) as sounding,
        av.open(str(out), "w", format="mp4") as written,
    ):
        packets = [
            _packets(source, stream, written.add_stream_from_template(stream))
            for source, stream in ((pictured, pictured.streams.video[0]), (sounding, sounding.streams.audio[0]))
        ]
        for packet in heapq.merge(*packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            written.mux(packet)


def _has(file: Path, kind: str) -> bool:
    with av.open(str(file)) as container:
        return any(stream.type == kind for stream in container.streams)


def _packets(source: InputContainer, stream: Stream, to: Stream) -> Iterator[Packet]:
    for packet in source.demux(stream):
        if packet.dts is not None:  # the last one is empty
            packet.stream = to
            yield packet


def _entry(video: Video, status: str, path: Path) -> VideoEntry:
    with path.open("rb") as file:
        sha256 = digest(file, "sha256")
    return VideoEntry(video.url, status, today(), "", video.height, _height(path), path.stat().st_size, sha256)


def _height(path: Path) -> int | None:
    """Pixels; None of what a person placed and is no video, of which the clips stage will tell."""
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].height
    except (av.FFmpegError, IndexError):
        return None


def _cookies() -> str | None:
    """The text of the file that YTDLP_COOKIES_FILE names, if it does. DownloadError if that holds no cookies."""
    path = os.environ.get(COOKIES)
    if not path:
        return None
    said = io.StringIO()
    try:
        text = Path(path).read_text()
        with contextlib.redirect_stderr(said):  # yt-dlp would print the very line that it cannot read
            YoutubeDLCookieJar(io.StringIO(text)).load()
    except (OSError, ValueError):
        said.write("unreadable")
    if said.getvalue():
        raise DownloadError(
            f"{COOKIES} names {path}, which is no cookies file in Netscape's format: export it again, or unset {COOKIES}"
        )
    return text
