"""What the two corpora of scanned faces have in common: their clips, in the layout of FaceFormer's loaders.

    wav/<speaker>_<clip>.wav              sound, as delivered
    vertices_npy/<speaker>_<clip>.npy     (T, 3V) or (T, V, 3) float, on the clock of the sound
    templates/<speaker>.npy               (V, 3) float32, the neutral face
    faces.npy                             (F, 3) int32, where a corpus tells its triangles
    prepared.json                         which native files these were made of, and which clips could not be made

Whoever has such files already puts them there, with their `templates.pkl`; `prepare` makes the rest, from native files too.
"""

import hashlib
import logging
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import unpickle
from data.corpora import Refused, safe_key
from data.files import atomic_file
from data.media.video import MediaError, duration
from data.shardset import json_bytes, json_object

RECORD = "prepared.json"
NAME = re.compile(r"[A-Za-z0-9-]+")  # of a speaker (which may have "_" too) or a clip, so that "speaker_clip" splits one way


class UnusableScans(ValueError):
    """A native file is not what its corpus delivers, so that none of its clips can be made."""


class BadTake(Exception):
    """One clip cannot be made; the others can."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Take:
    """A clip that has sound, motion and a template. Files are relative to the corpus's folder."""

    key: str
    speaker: str
    name: str
    sound: str
    motion: str
    template: str
    frames: int
    seconds: float  # of the sound


def prepare_once(raw: Path, part: str, sources: Sequence[Path], make: Callable[[bool], Iterable[Refused]]) -> None:
    """Runs `make(keep)`, unless it ran to its end on these bytes before; what it refuses goes into the record.

    keep: whether a run on the same bytes was broken off, so that the files it left, which are whole, need not be made again.
    """
    record = _record(raw)
    sha256 = {source.name: _sha256(source) for source in sources}
    before = record.get(part, {})
    keep = before.get("sha256") == sha256
    if keep and before["done"]:
        return
    record[part] = {"sha256": sha256, "done": False, "refused": {}}
    _write_record(raw, record)
    refused = {bad.key: [bad.reason, bad.detail] for bad in make(keep)}
    record[part] = {"sha256": sha256, "done": True, "refused": refused}
    _write_record(raw, record)
    logging.getLogger(__name__).info("%s: prepared, %d clips refused", raw / part, len(refused))


def make_templates(raw: Path) -> None:
    """`templates.pkl` to `templates/<speaker>.npy`. Raises UnsafePickle, UnusableScans."""
    if not (raw / "templates.pkl").exists():
        raise UnusableScans(f"{raw} lacks templates.pkl, the neutral face of each speaker: put it there")

    def make(keep: bool) -> Iterator[Refused]:
        templates = unpickle.load(raw / "templates.pkl")
        if not isinstance(templates, dict):
            raise UnusableScans(f"{raw / 'templates.pkl'} holds no dict of templates: fetch it again")
        for speaker, vertices in templates.items():
            write_template(raw, str(speaker), vertices)
        yield from ()

    prepare_once(raw, "templates.pkl", [raw / "templates.pkl"], make)


def is_safe(speaker: str, name: str) -> bool:
    """Whether the two can stand in a file's name, and be told apart in it."""
    return bool(NAME.fullmatch(speaker.replace("_", "-")) and NAME.fullmatch(name))


def write_template(raw: Path, speaker: str, vertices: Any) -> None:
    """`templates/<speaker>.npy`; one that is no mesh is left out, and its speaker's clips will be refused for that."""
    if not is_safe(speaker, "template") or not is_mesh(vertices):
        logging.getLogger(__name__).warning("%s: the template of %a is no (V, 3) mesh of finite numbers", raw, speaker)
        return
    write_array(raw / "templates" / f"{speaker}.npy", vertices.astype(np.float32))


def is_mesh(vertices: Any) -> bool:
    shaped = isinstance(vertices, np.ndarray) and vertices.dtype.kind == "f" and vertices.ndim == 2 and vertices.shape[1] == 3
    return shaped and len(vertices) > 0 and bool(np.isfinite(vertices).all())


def write_array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        np.save(file, array, allow_pickle=False)


def takes(raw: Path, vertices: int) -> Iterator[Take | Refused]:
    """Every clip of which there is sound or motion, or that `prepare` refused. vertices: that each frame must have."""
    refused = {key: Refused(key, *why) for part in _record(raw).values() for key, why in part["refused"].items()}
    yield from refused.values()
    stems = {
        path.stem for folder, suffix in (("wav", "wav"), ("vertices_npy", "npy")) for path in (raw / folder).glob(f"*.{suffix}")
    }
    for stem in sorted(stems):
        speaker, _, name = stem.rpartition("_")
        key = safe_key(speaker, name)
        if key not in refused:
            try:
                yield _take(raw, key, stem, vertices)
            except BadTake as bad:
                yield Refused(key, bad.reason, bad.detail)


def _take(raw: Path, key: str, stem: str, vertices: int) -> Take:
    speaker, _, name = stem.rpartition("_")
    sound, motion, template = f"wav/{stem}.wav", f"vertices_npy/{stem}.npy", f"templates/{speaker}.npy"
    if not is_safe(speaker, name):
        raise BadTake("unsafe name", f"{stem!a} is no name of a speaker and a clip, with _ between")
    for file, what in ((sound, "no sound"), (motion, "no motion"), (template, "no template")):
        if not (raw / file).exists():
            raise BadTake(what, f"{raw / file} is not there")
    frames, count = _motion_size(raw / motion)
    if count != vertices:
        raise BadTake("wrong number of vertices", f"{motion} has {count} a frame, {vertices} belong there")
    if (shape := read_array(raw / template).shape) != (vertices, 3):
        raise BadTake("no template", f"{template} has the shape {shape}, not {(vertices, 3)}")
    return Take(key, speaker, name, sound, motion, template, frames, _seconds(raw / sound))


def read_array(path: Path) -> np.ndarray:
    """The array of floats of a .npy file, left on the disk. Raises BadTake."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, TypeError, SyntaxError, tokenize.TokenError) as error:  # a header is Python text
        raise BadTake("unreadable file", f"{path}: {error}") from error
    if array.dtype.kind != "f":
        raise BadTake("unreadable file", f"{path} holds no floats")
    return array


def _motion_size(path: Path) -> tuple[int, int]:
    """Frames and vertices of a clip, from the file's header."""
    shape = read_array(path).shape
    if len(shape) == 3 and shape[2] == 3:
        return shape[0], shape[1]
    if len(shape) == 2 and shape[1] % 3 == 0:
        return shape[0], shape[1] // 3
    raise BadTake("unreadable file", f"{path} has the shape {shape}, neither (T, 3V) nor (T, V, 3)")


def _seconds(path: Path) -> float:
    try:
        seconds = duration(path)
    except MediaError as error:
        raise BadTake("unreadable file", f"{path}: {error}") from error
    if not seconds:
        raise BadTake("unreadable file", f"{path} does not tell how long it is")
    return seconds


def _record(raw: Path) -> dict[str, Any]:
    return json_object((raw / RECORD).read_bytes()) if (raw / RECORD).exists() else {}


def _write_record(raw: Path, record: dict[str, Any]) -> None:
    with atomic_file(raw / RECORD) as file:
        file.write(json_bytes(record))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
