"""Every corpus that has a manifest: what it weighs, what of it is on this disk, and what to do about the rest."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.manifest import HERE, Manifest, corpora, manifest
from data.shardset import ShardSet
from stages.fetch.record import BY_HAND, DOWNLOADED, Record
from stages.params import output

FETCHED = "fetched"


@dataclass(frozen=True)
class Holding:
    """What of a corpus is on this disk.

    size: bytes of all its files, 0 if they are not known beforehand. here: bytes of its native files.
    clips: of its training shards, None before those are made. next: what to do, "" if nothing is left to do.
    """

    corpus: str
    about: str
    licence: str
    page: str
    size: int
    here: int
    state: str
    clips: int | None
    next: str


def holdings(listed: list[str]) -> list[Holding]:
    """Of every corpus; `listed` are those that params.yaml names."""
    return [_holding(manifest(corpus), corpus in listed) for corpus in corpora()]


def _holding(known: Manifest, listed: bool) -> Holding:
    raw = output("download", known.corpus)
    record = Record.read(Path("data/fetched") / f"{known.corpus}.json")
    statuses = Counter([one.status for one in record.files.values()] + [one.status for one in record.videos.values()])
    absent = statuses - Counter({kind: statuses[kind] for kind in (DOWNLOADED, BY_HAND)})
    here = sum(path.stat().st_size for path in raw.rglob("*") if path.is_file())
    shards = output("shards", known.corpus)
    if record.path.exists() and not absent:
        state, todo = FETCHED, ""
    elif record.path.exists():
        told = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in absent.most_common())
        state, todo = f"{statuses.total() - absent.total()} of {statuses.total()} files: {told}", _again(raw)
    else:
        state, todo = ("begun" if here else "not here"), _first(known, raw)
    if not todo and not shards.exists():
        todo = f"dvc repro verify@{known.corpus}"
    if not listed:
        todo = f"name it under `corpora` in params.yaml; {todo}".removesuffix("; ")
    clips = _clips(shards)
    return Holding(known.corpus, known.about, known.licence.name, known.licence.page, _size(known), here, state, clips, todo)


def _first(known: Manifest, raw: Path) -> str:
    """What has to be done before, and for, the first download."""
    steps = []
    for source in known.sources:
        forms = [", ".join(names) for names in [source.get("manual", []), *source.get("or", [])] if names]
        by_hand = f"place {' or '.join(forms)} in {raw}" if forms else ""
        if missing := [name for name in source.get("form", {}).values() if not os.environ.get(name)]:
            steps.append(f"register at {known.licence.page}, set {' and '.join(missing)}{', or ' if by_hand else ''}{by_hand}")
        elif "manual" in source:
            steps.append(by_hand)
    if known.licence.accept:
        steps.append(f"accept its licence: TALKINGFACE_ACCEPT_LICENCE={known.corpus}")
    return "; ".join([*steps, f"dvc repro verify@{known.corpus}"])


def _again(raw: Path) -> str:
    return f"dvc repro asks again for what may come; place others by hand in {raw}/videos"


def _size(known: Manifest) -> int:
    """Bytes of its files; 0 if the manifest does not know the size of each."""
    sizes = [_source_size(source) for source in known.sources]
    return sum(sizes) if all(sizes) else 0


def _source_size(source: dict[str, Any]) -> int:
    if "list" in source:
        lines = (HERE / "manifests" / source["list"]).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line)
    return int(source.get("bytes", 0))


def _clips(shards: Path) -> int | None:
    if not shards.exists():
        return None
    return sum(len(ShardSet(split).keys) for split in shards.iterdir() if split.is_dir())
