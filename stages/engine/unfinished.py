"""Finished shards of a run that has not finished, found again by what they were made from.

    work/lock      held while a run uses the folder
    work/records/  00000.tar.json: what the shard was made from, and what came of it
    work/shards/   00000.tar ...: becomes the output when the run finishes

DVC deletes a stage's outputs before it runs the stage, so this stands outside of them.
"""

import fcntl
import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.files import atomic_file, replace_folder
from data.shardset import Index, LeftOut, ShardEntry, json_bytes, json_object, write_index
from stages.engine.sources import SourceShard


@dataclass(frozen=True)
class FinishedShard:
    """entry: None if none of the shard's clips came out. left_out: by this stage, not by those upstream."""

    entry: ShardEntry | None
    left_out: dict[str, LeftOut]

    @property
    def failed(self) -> dict[str, LeftOut]:
        return {key: left_out for key, left_out in self.left_out.items() if left_out.state == "failed"}

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "FinishedShard":
        return cls(
            entry=ShardEntry.from_json(written["entry"]) if written["entry"] else None,
            left_out={key: LeftOut(**left_out) for key, left_out in written["left_out"].items()},
        )


class AlreadyRunning(Exception):
    """Another process works in the same folder, such as a stage that outlived the `dvc` that started it."""


class UnfinishedRun:
    """The work folder of one stage, used by one process at a time; raises AlreadyRunning.

    recipe: what a finished shard is made from beside its source: the stage's parameters and code, as JSON values.
    """

    def __init__(self, folder: Path, recipe: dict[str, Any]):
        self.folder = folder
        self.shards = folder / "shards"
        self._records = folder / "records"
        self._recipe = recipe

    def __enter__(self) -> "UnfinishedRun":
        self.shards.mkdir(parents=True, exist_ok=True)
        self._records.mkdir(exist_ok=True)
        self._lock = open(self.folder / "lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise AlreadyRunning(f"another process works in {self.folder}: wait until it ends, or end it") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def recall(self, shard: SourceShard) -> FinishedShard | None:
        """What an earlier run made of the shard, if from the same source, parameters and code, and still undamaged."""
        try:
            record = json_object(self._record(shard.name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        if record["made_from"] != self._made_from(shard):
            return None
        finished = FinishedShard.from_json(record)
        if finished.entry and not self._intact(finished.entry):
            return None
        return finished

    def remember(self, shard: SourceShard, finished: FinishedShard) -> None:
        """A shard with failed clips is not remembered, so that the next run tries them again."""
        if not finished.failed:
            with atomic_file(self._record(shard.name)) as file:
                file.write(json_bytes({"made_from": self._made_from(shard)} | asdict(finished)))

    def publish(self, index: Index, out: Path) -> None:
        """Makes the shards the folder `out`, and forgets the rest."""
        listed = {shard.name for shard in index.shards}
        for file in self.shards.iterdir():
            if file.name not in listed:
                file.unlink()
        write_index(self.shards, index)
        replace_folder(self.shards, out)
        shutil.rmtree(self.folder)

    def _record(self, shard_name: str) -> Path:
        return self._records / f"{shard_name}.json"

    def _made_from(self, shard: SourceShard) -> dict[str, Any]:
        return json_object(json_bytes(self._recipe | {"source": shard.sha256()}))

    def _intact(self, entry: ShardEntry) -> bool:
        try:
            with open(self.shards / entry.name, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        except FileNotFoundError:
            return False
