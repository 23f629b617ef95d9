"""Score a trained system on the held-out clips, beside baselines that need no training and beside other samplers."""

import csv
import importlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.files import in_place
from data.shardset import Clip, Index, ShardSet, json_object, npy_bytes, write_index, write_shard
from stages.judges import judge_of
from stages.params import output, section, system_params


@dataclass(frozen=True)
class Sampler:
    """How noise becomes a frame, or a motion."""

    sampler: str  # a name that the system's generate.py knows
    steps: int  # evaluations of the network

    @property
    def name(self) -> str:
        return f"{self.sampler} {self.steps}"


@dataclass(frozen=True)
class EvaluateParams:
    """`evaluate.<system>` in params.yaml."""

    sampler: str  # the sampler whose clips are scored as the system's own, and rendered
    steps: int  # its steps
    against: list[Sampler]  # other samplers, for the table of quality against time
    against_clips: int  # how many clips that table is made of, the first ones: at least 1
    batch_size: int  # clips generated at once
    seed: int  # of the noise, together with each clip's key

    def __post_init__(self) -> None:
        if self.against_clips < 1:
            raise ValueError("against_clips must be at least 1: to compare no samplers, set against to []")


Row = Mapping[str, float | str]


def mean_row(rows: Sequence[Row]) -> dict[str, float | str | None]:
    """The mean over clips; a value undefined for some clip (NaN) is the mean of the others, or null; words are kept."""
    means: dict[str, float | str | None] = {}
    for name, first in rows[0].items():
        if isinstance(first, str):
            means[name] = first
            continue
        values = np.array([row[name] for row in rows])
        means[name] = None if np.isnan(values).all() else significant(float(np.nanmean(values)))
    return means


def significant(value: float) -> float:
    """Rounded to five digits: scores are decibels as well as squares of millimetres in metres."""
    return float(f"{value:.5g}")


def frame_count(clips: Sequence[Clip]) -> int:
    """Frames of all these clips."""
    return sum(json_object(clip.members["json"])["frames"] for clip in clips)


def evaluate(
    system: str,
    clips: list[Clip],
    train: Iterable[Clip],
    raw: Path,
    checkpoint: Path,
    params: EvaluateParams,
    out: Path,
    generated: Path,
) -> None:
    """Write `out/metrics.json`, `out/samplers.csv` and `out/samplers.png`, and what was generated as a shard set.

    raw: the corpus's native files.
    """
    generator, judge = importlib.import_module(f"models.{system}.generate"), judge_of(system)

    def make(sampler: Sampler, some: Sequence[Clip], seed: int) -> list[np.ndarray]:
        return generator.regenerate(checkpoint, some, sampler.sampler, sampler.steps, params.batch_size, seed)

    def rows(made: Iterable[np.ndarray], some: Sequence[Clip]) -> list[Row]:
        return [judge.scores(clip, fake, raw) for clip, fake in zip(some, made, strict=True)]

    own, compared = Sampler(params.sampler, params.steps), clips[: params.against_clips]
    generator.regenerate(checkpoint, clips[:1], own.sampler, 1, 1, params.seed)  # what libraries set up once is not timed
    table, made = [], {}
    for sampler in (own, *params.against):
        some = clips if sampler is own else compared
        start = time.perf_counter()
        made[sampler.name] = make(sampler, some, params.seed)
        seconds = significant((time.perf_counter() - start) / frame_count(some))
        scored = rows(made[sampler.name], some)
        table.append({"sampler": sampler.name, "seconds_per_frame": seconds} | mean_row(scored[: len(compared)]))
        if sampler is own:
            per_clip = scored
    again = zip(clips, made[own.name], make(own, clips, params.seed + 1), strict=True)
    diversity = significant(float(np.mean([judge.difference(*clip_one_other) for clip_one_other in again])))
    metrics = {
        "own": mean_row(per_clip) | {"diversity": diversity, "seconds_per_frame": table[0]["seconds_per_frame"]},
        "baselines": {name: mean_row(rows(videos, clips)) for name, videos in judge.baselines(clips, train).items()},
        "clips": {clip.key: mean_row([row]) for clip, row in zip(clips, per_clip, strict=True)},
        "count": {"clips": len(clips), "frames": frame_count(clips), "compared": len(compared)},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    with (out / "samplers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    judge.sheet(clips, made, raw).save(out / "samplers.png")
    shown = [
        Clip(clip.key, {"json": clip.members["json"], judge.MEMBER: npy_bytes(fake)})
        for clip, fake in zip(clips, made[own.name], strict=True)
    ]
    write_index(generated, Index.of([write_shard(generated / "00000.tar", shown)], {}))


def run(system: str) -> None:
    corpus = system_params(system).corpus
    shards = output("shards", corpus)
    clips, train = list(ShardSet(shards / "test").clips()), ShardSet(shards / "train").clips()
    params = section(f"evaluate.{system}", EvaluateParams)
    with in_place(output("evaluation", system)) as out, in_place(output("generated", system)) as generated:
        evaluate(system, clips, train, output("download", corpus), output("checkpoints", system), params, out, generated)
