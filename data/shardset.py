"""Shard sets: the one format in which the stages hand clips to each other and to training.

A shard set is a folder of WebDataset tars beside an `index.json`:

    00000.tar  s1/bbaf2n.json  s1/bbaf2n.mp4  s1/bbaf2n.wav  s1/bbal6p.json ...
    index.json columns, counts, each shard's keys + bytes + sha256, every clip left out with its reason

The index is the truth: webdataset itself reads a truncated tar in silence, so a reader checks each shard against the
index before it gives the shard's first clip. Equal clips make equal bytes, on any day and by any user.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise, zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from data.files import atomic_file

INDEX = "index.json"

# Narrow on purpose: such names mean the same to every file system, to tar's 100-byte name field and to webdataset,
# which skips names that begin with "__", drops members that begin with "_" and lower-cases suffixes, all in silence.
KEY = re.compile(r"(?!__)[A-Za-z0-9_-]{1,80}/[A-Za-z0-9_-]{1,75}")
SUFFIX = re.compile(r"(?=.{1,24}$)[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
SHARD_NAME = re.compile(r"[0-9]{5,}\.tar")

Column = dict[str, bytes]
"""What a stage knows about one clip: member suffix, such as "landmarks.npy", to its bytes."""


@dataclass(frozen=True)
class Clip:
    """One utterance of one person.

    key: "speaker/name", unique in its corpus, made of letters, digits, "-" and "_"; ValueError if it is not.
    members: member suffix ("mp4", "landmarks.npy", "json") to bytes; may be a mapping that reads its files when asked.
    """

    key: str
    members: Mapping[str, bytes]

    def __post_init__(self):
        _check_key(self.key)
        if not self.members:
            raise ValueError(f"clip {self.key} has no members")
        for suffix in self.members:
            if not SUFFIX.fullmatch(suffix):
                raise ValueError(f"clip {self.key}: unsafe member suffix {suffix!r}; use one like 'mp4' or 'mask.npy'")


@dataclass(frozen=True)
class Skipped:
    """A stage's answer for a clip that it cannot use; the reason is short and common to such clips ("no face")."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Why a clip of the corpus is not in the set: filtered by a stage's judgement, or failed by an error in it."""

    state: Literal["filtered", "failed"]
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the index knows it.

    keys: its clips in the order of the tar, ascending.
    columns: the member suffixes, ascending, that each of its clips has.
    """

    name: str
    bytes: int
    sha256: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "ShardEntry":
        return cls(**written | {"keys": tuple(written["keys"]), "columns": tuple(written["columns"])})


@dataclass(frozen=True)
class Index:
    """What a shard set holds: clips_in = clips_out + filtered + failed, where `in` is the whole corpus.

    columns: the member suffixes that every clip of the set has.
    left_out: key to reason, for every clip left out by this stage or by one upstream of it.
    """

    columns: tuple[str, ...]
    shards: tuple[ShardEntry, ...]
    left_out: dict[str, LeftOut]

    def __post_init__(self):
        for shard in self.shards:
            if not SHARD_NAME.fullmatch(shard.name):
                raise ValueError(f"unsafe shard name {shard.name!r}; use one like '00000.tar'")
            if not shard.keys:
                raise ValueError(f"shard {shard.name} holds no clip; leave it out")
            if shard.columns != self.columns:
                raise ValueError(f"shard {shard.name} has the columns {shard.columns}, the set has {self.columns}")
        for key in (*self.keys, *self.left_out):
            _check_key(key)
        for earlier, later in pairwise(self.keys):
            if earlier >= later:
                raise ValueError(f"clip {later} comes after {earlier}; keys must ascend, each given once")
        both = self.left_out.keys() & set(self.keys)
        if both:
            raise ValueError(f"clip {min(both)} is in a shard and also left out")

    @classmethod
    def of(cls, shards: Iterable[ShardEntry], left_out: Mapping[str, LeftOut]) -> "Index":
        """The index of these shards; ValueError if their columns differ or a clip occurs twice."""
        shards = tuple(shards)
        return cls(shards[0].columns if shards else (), shards, dict(left_out))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for shard in self.shards for key in shard.keys)

    @property
    def clips_in(self) -> int:
        return self.clips_out + len(self.left_out)

    @property
    def clips_out(self) -> int:
        return sum(len(shard.keys) for shard in self.shards)

    @property
    def filtered(self) -> int:
        return sum(left_out.state == "filtered" for left_out in self.left_out.values())

    @property
    def failed(self) -> int:
        return sum(left_out.state == "failed" for left_out in self.left_out.values())

    def counts(self) -> dict[str, int]:
        return {"in": self.clips_in, "out": self.clips_out, "filtered": self.filtered, "failed": self.failed}

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"counts": self.counts()}

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Index":
        """The index as `to_json` wrote it; ValueError if it contradicts itself, KeyError or TypeError if parts lack."""
        index = cls(
            columns=tuple(written["columns"]),
            shards=tuple(ShardEntry.from_json(shard) for shard in written["shards"]),
            left_out={key: LeftOut(**left_out) for key, left_out in written["left_out"].items()},
        )
        if written["counts"] != index.counts():
            raise ValueError(f"counts are written as {written['counts']}, but its lists give {index.counts()}")
        return index


class DamagedShard(Exception):
    """A shard or index is missing, short, long or altered."""


class ShardSet:
    """A shard set on disk, opened for reading.

    Opening checks the index, and that its shards are there, no more and no fewer; their bytes are checked when read.
    Raises DamagedShard.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            self.index = Index.from_json(json_object((self.path / INDEX).read_bytes()))
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise _damaged(self.path / INDEX, f"cannot be used ({type(error).__name__}: {error})") from error

        expected = {shard.name for shard in self.index.shards}
        found = {file.name for file in self.path.glob("*.tar")}
        if expected - found:
            raise _damaged(self.path / min(expected - found), "is missing")
        if found - expected:
            raise _damaged(self.path / min(found - expected), "is not in the index")

    @property
    def keys(self) -> tuple[str, ...]:
        return self.index.keys

    def clips(self) -> Iterator[Clip]:
        """All clips in the order of their keys. Raises DamagedShard before the first clip of a damaged shard."""
        for shard in self.index.shards:
            yield from self.shard_clips(shard)

    def shard_clips(self, shard: ShardEntry) -> Iterator[Clip]:
        """The clips of one shard, one in memory at a time. Raises DamagedShard before the first one."""
        with open(self.path / shard.name, "rb") as file:
            self._check(file, shard)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for key, members in groupby(tar, key=lambda member: _split(member.name)[0]):
                    yield Clip(key, {_split(member.name)[1]: _read(tar, member) for member in members})

    def verified(self, shard: ShardEntry) -> Path:
        """The path of one shard, for another reader, once its bytes are checked. Raises DamagedShard."""
        path = self.path / shard.name
        with open(path, "rb") as file:
            self._check(file, shard)
        return path

    def verify(self) -> None:
        """Reads every shard once. Raises DamagedShard for the first that is not what the index says."""
        for shard in self.index.shards:
            self.verified(shard)

    def _check(self, file: io.BufferedReader, shard: ShardEntry) -> None:
        path = self.path / shard.name
        size = os.fstat(file.fileno()).st_size
        names = [f"{key}.{suffix}" for key in shard.keys for suffix in shard.columns]
        if size < shard.bytes:
            readable = _readable_members(file)
            lost = next((_split(name)[0] for name in names if name not in readable), None)
            where = f"{lost} and what follows it are lost" if lost else f"it ends too soon after {shard.keys[-1]}"
            raise _damaged(path, f"is {size} bytes long, not {shard.bytes}: {where}")
        if size > shard.bytes:
            raise _damaged(path, f"is {size} bytes long, not {shard.bytes}: {shard.keys[-1]} was its last clip")
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            raise _damaged(path, f"has other bytes than were written, in one of {shard.keys[0]} … {shard.keys[-1]}")
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for expected, found in zip_longest(names, tar.getnames()):
                if expected != found:
                    raise _damaged(path, f"holds {found} where the index has {expected}")


def write_shard(path: Path, clips: Iterable[Clip]) -> ShardEntry:
    """Writes clips, given in ascending order of their keys, to a tar; it appears under its name whole or not at all.

    Raises ValueError for keys that do not ascend and for clips whose columns differ.
    """
    keys: list[str] = []
    columns: tuple[str, ...] = ()
    with atomic_file(path) as file:
        # What webdataset.TarWriter would write; importing webdataset means importing torch, a second in every process.
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for clip in clips:
                if keys and clip.key <= keys[-1]:
                    raise ValueError(f"{path}: clip {clip.key} comes after {keys[-1]}; give clips in ascending order")
                columns = columns or tuple(sorted(clip.members))
                if clip.members.keys() != set(columns):
                    raise ValueError(f"{path}: clip {clip.key} has {sorted(clip.members)}, not {columns} as {keys[0]}")
                for suffix in columns:
                    data = clip.members[suffix]
                    tar.addfile(_member(f"{clip.key}.{suffix}", len(data)), io.BytesIO(data))
                keys.append(clip.key)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardEntry(path.name, path.stat().st_size, sha256, tuple(keys), columns)


def write_index(folder: Path, index: Index) -> None:
    """Writes `index.json`, last of all: a folder without it is no shard set."""
    with atomic_file(folder / INDEX) as file:
        file.write(json_bytes(index.to_json()))


def npy_bytes(array: np.ndarray) -> bytes:
    """The array as a .npy file, in C order whatever its layout in memory, so that equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()


def npy_array(data: bytes) -> np.ndarray:
    """The array of a .npy file; ValueError if it holds Python objects, which could run code when read."""
    return np.load(io.BytesIO(data), allow_pickle=False)


def json_bytes(value: Any) -> bytes:
    """The value as JSON, UTF-8 with sorted keys; ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"


def json_object(data: bytes) -> dict[str, Any]:
    """The object of a JSON file; ValueError if it holds anything else."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value


def _check_key(key: str) -> None:
    if not KEY.fullmatch(key):
        raise ValueError(f"unsafe clip key {key!r}; use 'speaker/name' of letters, digits, '-' and '_'")


def _split(member: str) -> tuple[str, str]:
    key, _, suffix = member.partition(".")
    return key, suffix


def _member(name: str, size: int) -> tarfile.TarInfo:
    """The header of a member; TarInfo's defaults are time 0 and nobody's ownership."""
    header = tarfile.TarInfo(name)
    header.size = size
    header.mode = 0o444
    return header


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"{member.name} is no regular file")
    return file.read()


def _readable_members(file: BinaryIO) -> set[str]:
    readable = set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                _read(tar, member)
                readable.add(member.name)
    except tarfile.TarError:
        pass  # the member in which the file ends
    return readable


def _damaged(path: Path, what: str) -> DamagedShard:
    return DamagedShard(f"{path} {what}. Next step: delete {path.parent} and run the stage that writes it again.")
