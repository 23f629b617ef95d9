"""BIWI 3D Audiovisual Corpus of Affective Communication, B3D(AC)² (Fanelli et al., IEEE Transactions on Multimedia 2010).

14 speakers (F1–F8, M1–M6), 40 sentences, each said neutrally ("01") and with emotion ("e01"); 23,370 vertices at 25 fps,
44.1 kHz sound. As it was delivered:

    faces01.tgz … faces05.tgz    faces/F1/e01.tar with a .vl file per frame; a faces/F1/e01.tgz beside it is not needed
    rest.tgz                     audio/F1_e01_cut.wav
    rigid_scans/F1.obj           the template, in one of those archives or put here; faces/F1.obj will do

or, processed, the layout of `data.corpora.scans` with `templates.pkl`, in CodeTalker's scaling (F1_e01) or in FaceXHuBERT's,
where e01 is called 41. The archives are read as streams: nothing in them is ever written to the place that it names.
"""

import fnmatch
import gzip
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data.corpora import Refused, UnsafeFile, safe_key, source_clip
from data.corpora.scans import (
    BadTake,
    Take,
    UnusableScans,
    make_templates,
    prepare_once,
    read_array,
    takes,
    write_array,
    write_template,
)
from data.files import atomic_file
from data.manifest import Manifest, WrongManifest
from data.media import mesh
from data.shardset import Clip

FPS = 25
ARCHIVES = ("faces*.tgz", "rest.tgz")
AS_STORED = "none"  # the setting `scaling`: metres where that can be known, else what the files come in
LARGEST_FILE = 64 << 20  # bytes of a sound or template
LARGEST_FRAME = 1 << 20  # bytes; 23,370 vertices take 280,444
MOST_FRAMES = 2000  # of one clip; the longest sentences have some 200
MOST_UNPACKED = (100, 1 << 28)  # times an archive's own size, and bytes besides: more is a bomb

_WHO = r"(?:[^\n]*/)?(?P<speaker>[FM][0-9]{1,2})"
FRAMES = re.compile(_WHO + r"/(?P<take>e?[0-9]{2})(?:\.tar|/(?![.])[^/\n]*?[0-9]+\.vl)")
SOUND = re.compile(_WHO + r"_(?P<take>e?[0-9]{2})_cut\.wav")
TEMPLATE = re.compile(_WHO + r"\.obj")
FRAME_NUMBER = re.compile(r"(?:[^\n]*/)?(?![.])[^/\n]*?([0-9]+)\.vl")

DAMAGED = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)


def prepare(raw: Path) -> None:
    """Native archives to files per clip. Raises UnusableScans, UnsafePickle."""
    archives = sorted(path for pattern in ARCHIVES for path in raw.glob(pattern))
    if not archives:
        make_templates(raw)
    for archive in archives:
        prepare_once(raw, archive.name, [archive], partial(_unpack, raw, archive))
    if scans := sorted(raw.glob("rigid_scans/*.obj")):
        prepare_once(raw, "rigid_scans", scans, partial(_read_templates, raw, scans))


def clips(raw: Path, manifest: Manifest) -> Iterator[Clip | Refused]:
    """Settings: vertices, that a mesh has; scaling: none, metres, codetalker or facexhubert; takes: a pattern, such as e*."""
    settings = manifest.settings
    known = (AS_STORED, mesh.METRES, mesh.CODETALKER, mesh.FACEXHUBERT)
    if settings["scaling"] not in known:
        raise WrongManifest(f"{manifest.corpus}: settings.scaling is {settings['scaling']!r}; it may be {', '.join(known)}")
    for take in takes(raw, settings["vertices"]):
        speaker, name = take.key.split("/")
        # FaceXHuBERT counts the emotional takes of a sentence from 41.
        if re.fullmatch("[4-8][0-9]", name) and 41 <= int(name) <= 80:
            name = f"e{int(name) - 40:02d}"
        if fnmatch.fnmatchcase(name, settings["takes"]):
            key = f"{speaker}/{name}"
            yield Refused(key, take.reason, take.detail) if isinstance(take, Refused) else _clip(raw, key, take, settings)


def _clip(raw: Path, key: str, take: Take, settings: dict[str, Any]) -> Clip | Refused:
    stored_as, scaling = mesh.scaling_of(read_array(raw / take.template)), settings["scaling"]
    if stored_as is None:
        return Refused(key, "unknown scaling", f"{raw / take.template} is in no scaling that BIWI is known in")
    if scaling == AS_STORED:
        scaling = mesh.METRES if stored_as == mesh.MILLIMETRES else stored_as
    if stored_as not in (mesh.MILLIMETRES, scaling):
        return Refused(key, "other scaling", f"the files are in that of {stored_as}, from which {scaling} cannot be made")
    beside = {"vertices": take.motion, "template": take.template}
    if scaling == mesh.CODETALKER != stored_as:
        if not (raw / "faces.npy").exists():
            return Refused(key, "no faces", f"the scaling {scaling} needs a template (.obj) with triangles")
        beside["faces"] = "faces.npy"
    emotional = key.partition("/")[2].startswith("e")
    number = re.search(r"\d+$", key)
    try:
        return source_clip(
            key,
            raw,
            take.sound,
            beside=beside,
            motion_fps=FPS,
            keep_every=1,
            topology="biwi",
            stored_as=stored_as,
            scaling=scaling,
            emotion="emotional" if emotional else "neutral",
            gender={"F": "female", "M": "male"}.get(key[0]),
            sentence=int(number[0]) if number else None,
        )
    except UnsafeFile as error:
        return Refused(key, "unsafe file", str(error))


def _unpack(raw: Path, archive: Path, keep: bool) -> Iterator[Refused]:
    """Frames, sound and templates of one archive, which are read in the order in which they stand in it."""
    reached = "its beginning"
    try:
        with _Unpacked(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for (kind, speaker, take), members in groupby(tar, key=_what):
                    try:
                        _unpack_one(raw, tar, kind, speaker, take, members, keep)
                    except BadTake as bad:
                        if kind == "template":
                            raise UnusableScans(f"{archive}: {bad.reason}: {bad.detail}") from bad
                        yield Refused(safe_key(speaker, take), bad.reason, bad.detail)
                    reached = f"{speaker}/{take}" if kind else reached
            # tarfile takes damage, and a file that is cut off, for the end of the archive; gzip does not, once it is read.
            while rest := stream.read(1 << 20):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("more follows, which is no tar")
    except DAMAGED as error:
        raise UnusableScans(
            f"{archive} is damaged after {reached} ({type(error).__name__}: {error}): put a whole one in its place, run again"
        ) from error


class _Unpacked(gzip.GzipFile):
    """An archive's bytes, up to so many that it must be a bomb, whatever stands in it."""

    def __init__(self, archive: Path):
        super().__init__(archive)
        self.archive = archive
        self.most = self.left = MOST_UNPACKED[0] * archive.stat().st_size + MOST_UNPACKED[1]

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UnusableScans(f"{self.archive} unpacks to more than {self.most} bytes, which no scans do: fetch it again")
        return data


def _unpack_one(
    raw: Path, tar: tarfile.TarFile, kind: str, speaker: str, take: str, members: Iterator[tarfile.TarInfo], keep: bool
) -> None:
    """The frames, sound or template that these members are. Raises BadTake."""
    motion = raw / "vertices_npy" / f"{speaker}_{take}.npy"
    if kind == "frames" and not (keep and motion.exists()):
        frames_TV3 = _stack(_frames(tar, members))
        write_array(motion, frames_TV3.reshape(len(frames_TV3), -1))
    elif kind == "sound":
        path = raw / "wav" / f"{speaker}_{take}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(_read(tar, next(members), LARGEST_FILE))
    elif kind == "template":
        _write_template(raw, speaker, _read(tar, next(members), LARGEST_FILE))


def _what(member: tarfile.TarInfo) -> tuple[str, str, str]:
    """What a member is of, by its name: ("frames", "F1", "e01"); ("", "", "") for what is not needed."""
    for kind, pattern in (("frames", FRAMES), ("sound", SOUND), ("template", TEMPLATE)):
        if (found := pattern.fullmatch(member.name)) and not member.isdir():
            return kind, found["speaker"], found.groupdict().get("take", "")
    return "", "", ""


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, largest: int) -> bytes:
    _check(member)
    if member.size > largest:
        raise BadTake("too large a file", f"{member.name!a} has {member.size} bytes")
    return tar.extractfile(member).read()  # type: ignore[union-attr]


def _check(member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if not member.isreg() or path.is_absolute() or ".." in path.parts:
        raise BadTake("unsafe file in an archive", f"{member.name!a} is a link or a device, or leads out of the archive")


def _frames(tar: tarfile.TarFile, members: Iterable[tarfile.TarInfo]) -> Iterator[tuple[int, bytes]]:
    """Numbers and bytes of a clip's frames, which stand in a tar of their own or in the archive itself."""
    for member in members:
        _check(member)
        if not member.name.endswith(".tar"):
            yield _number(member), _read(tar, member, LARGEST_FRAME)
            continue
        try:
            with tarfile.open(fileobj=tar.extractfile(member), mode="r|") as inner:
                for frame in inner:
                    if FRAME_NUMBER.fullmatch(frame.name):
                        yield _number(frame), _read(inner, frame, LARGEST_FRAME)
        except tarfile.TarError as error:
            raise BadTake("unreadable frames", f"{member.name!a}: {error}") from error


def _number(member: tarfile.TarInfo) -> int:
    return int(FRAME_NUMBER.fullmatch(member.name)[1])  # type: ignore[index]


def _stack(frames: Iterable[tuple[int, bytes]]) -> np.ndarray:
    """Frames in the order of their numbers: `(T, V, 3)` float32. Raises BadTake."""
    of_number: dict[int, np.ndarray] = {}
    for number, data in frames:
        if number in of_number or len(of_number) == MOST_FRAMES:
            raise BadTake("too many frames", f"frame {number} comes twice, or there are more than {MOST_FRAMES}")
        try:
            of_number[number] = mesh.read_vl(data)
        except ValueError as error:
            raise BadTake("unreadable frames", f"frame {number}: {error}") from error
    numbers = sorted(of_number)
    if not numbers:
        raise BadTake("no motion", "its archive holds no .vl file")
    if numbers[0] > 1 or numbers[-1] - numbers[0] + 1 != len(numbers):
        raise BadTake("frames missing", f"{len(numbers)} frames, numbered {numbers[0]} to {numbers[-1]}")
    if len(counts := {len(frame) for frame in of_number.values()}) > 1:
        raise BadTake("wrong number of vertices", f"frames of {' and '.join(map(str, sorted(counts)))} vertices")
    frames_TV3 = np.stack([of_number[number] for number in numbers])
    if not np.isfinite(frames_TV3).all():
        raise BadTake("motion that is not finite", f"frame {int(np.argmin(np.isfinite(frames_TV3).all(axis=(1, 2))))}")
    return frames_TV3


def _read_templates(raw: Path, scans: list[Path], keep: bool) -> Iterator[Refused]:
    for path in scans:
        _write_template(raw, path.stem, path.read_bytes())
    yield from ()


def _write_template(raw: Path, speaker: str, data: bytes) -> None:
    """The template of an .obj, and the triangles that all templates share."""
    try:
        vertices_V3, faces_F3 = mesh.read_obj(data)
    except ValueError as error:
        raise UnusableScans(f"{raw}: the template of {speaker!a} is damaged ({error}): fetch it again") from error
    write_template(raw, speaker, vertices_V3)
    if len(faces_F3):
        write_array(raw / "faces.npy", faces_F3)
