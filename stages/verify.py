"""What came of a corpus: counts, hours, agreement of sound and pictures, and every clip that was left out, with its reason.

A broken promise of this house (a damaged shard, totals that do not balance, a clip in two splits) fails the stage. What
differs from the corpus as it is known (`expect` in its manifest) is told and fails nothing: half of HDTF is gone from the web.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.files import in_place
from data.manifest import SPLITS, Manifest, manifest
from data.shardset import LeftOut, ShardSet, json_bytes, json_object
from stages.catalogue import read_catalogue
from stages.params import output, parts
from stages.shards import COLUMNS, split_of_clips


class BrokenPromise(RuntimeError):
    """The corpus's clips do not add up: this is a fault of the laboratory, not of the corpus."""


@dataclass
class Tally:
    """Of one split. hours: of its clips. frames: with and without a face."""

    clips: int = 0
    hours: float = 0.0
    frames: int = 0
    frames_without_face: int = 0
    speakers: set[str] = field(default_factory=set)

    def add(self, key: str, about: dict[str, Any]) -> None:
        self.clips += 1
        self.hours += about["frames"] / about["fps"] / 3600
        self.frames += about["frames"]
        self.frames_without_face += about.get("frames_without_face", 0)
        self.speakers.add(key.partition("/")[0])

    def told(self) -> dict[str, Any]:
        return asdict(self) | {"speakers": len(self.speakers), "hours": round(self.hours, 4)}


def verify(corpus: str) -> dict[str, Any]:
    """The report of a corpus whose shards are made. Reads every byte of them. Raises BrokenPromise, DamagedShard."""
    catalogue, split_of = read_catalogue(corpus), split_of_clips(corpus)
    left_out: dict[str, LeftOut] = {}
    tallies: dict[str, Tally] = defaultdict(Tally)
    differences: list[float] = []
    lengths: list[float] = []
    columns: list[str] = []
    for part in parts():
        for column in COLUMNS:
            shard_set = ShardSet(output(column, f"{corpus}/{part}"))
            columns += shard_set.index.columns
            left_out = shard_set.index.left_out | left_out
            if column == "align":
                for clip in shard_set.clips():
                    about = json_object(clip.members["json"])
                    tallies[split_of[clip.key]].add(clip.key, about)
                    differences.append(about["sound_length_difference_s"])
                    lengths.append(about["frames"] / about["fps"])
            else:
                shard_set.verify()

    found = {clip.key for clip in catalogue.clips} | set(catalogue.left_out)
    sets = {split: ShardSet(output("shards", corpus) / split) for split in SPLITS}
    for shard_set in sets.values():
        shard_set.verify()
    _balance(corpus, found, left_out, split_of, {split: set(shard_set.keys) for split, shard_set in sets.items()})
    report = {
        "corpus": corpus,
        "clips": len(found),
        "used": {split: len(shard_set.keys) for split, shard_set in sets.items()},
        "aligned": {split: tallies[split].told() for split in sorted(tallies)},
        "excluded": sum(split == "excluded" for split in split_of.values()),
        "left_out": _reasons(left_out),
        "speakers_in_two_splits": _shared({split: tallies[split].speakers for split in SPLITS}),
        "sound_minus_pictures_ms": _spread(1000 * np.array(differences)),
        "seconds": _spread(np.array(lengths)),
        "lengths": _histogram(np.array(lengths)),
        "columns": sorted(set(columns)),
    }
    return report | {"expected": _expected(manifest(corpus), report)}


def _balance(
    corpus: str, found: set[str], left_out: dict[str, LeftOut], split_of: dict[str, str], used: dict[str, set[str]]
) -> None:
    """Every clip of the catalogue is in one split, or left out with a reason, or excluded by the protocol; none twice."""
    in_sets = Counter(key for keys in used.values() for key in keys)
    excluded = {key for key, split in split_of.items() if split == "excluded"} - set(left_out)
    accounted = set(in_sets) | set(left_out) | excluded
    twice = {key for key, times in in_sets.items() if times > 1} | (set(in_sets) & (set(left_out) | excluded))
    for what, keys in (
        ("accounted for twice", twice),
        ("lost without a reason", found - accounted),
        ("made up", accounted - found),
    ):
        if keys:
            raise BrokenPromise(f"{corpus}: {len(keys)} clips are {what}, as {min(keys)}. Run its stages again, from `align` on.")


def _reasons(left_out: dict[str, LeftOut]) -> list[dict[str, Any]]:
    """Of the clips left out: stage, reason, how many, and one of them; most frequent first."""
    by_reason: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for key, why in sorted(left_out.items()):
        by_reason[why.stage, why.state, why.reason].append(key)
    rows = [
        {
            "stage": stage,
            "state": state,
            "reason": reason,
            "clips": len(keys),
            "example": f"{keys[0]}: {left_out[keys[0]].detail}",
        }
        for (stage, state, reason), keys in by_reason.items()
    ]
    return sorted(rows, key=lambda row: (-row["clips"], row["stage"], row["reason"]))


def _shared(speakers: dict[str, set[str]]) -> list[str]:
    return sorted(speaker for speaker, times in Counter(who for some in speakers.values() for who in some).items() if times > 1)


def _spread(values: np.ndarray) -> dict[str, float]:
    names = {"least": 0, "median": 50, "most": 100}
    return {name: round(float(np.percentile(values, at)), 3) for name, at in names.items()}


def _histogram(values: np.ndarray, bins: int = 20) -> list[dict[str, float]]:
    """How many clips are how long; `seconds` is the middle of a bin."""
    counts, edges = np.histogram(values, bins)
    return [
        {"seconds": round(float(low + high) / 2, 2), "clips": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _expected(known: Manifest, report: dict[str, Any]) -> list[dict[str, Any]]:
    """What the manifest expects, beside what was found: `clips`, `train`, `val`, `test`, `speakers_apart`."""
    found = {"clips": report["clips"], "speakers_apart": not report["speakers_in_two_splits"]} | report["used"]
    return [{"what": what, "expected": known.expect[what], "found": found[what]} for what in found if what in known.expect]


def write_csv(path: Path, rows: Iterable[dict[str, Any]], columns: list[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def run(corpus: str) -> None:
    report = verify(corpus)
    with in_place(output("verified", corpus)) as out:
        (out / "report.json").write_bytes(json_bytes(report))
        write_csv(out / "left_out.csv", report["left_out"], ["stage", "state", "reason", "clips"])
        write_csv(out / "seconds.csv", report["lengths"], ["seconds", "clips"])
