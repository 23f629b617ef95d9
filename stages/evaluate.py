"""Score a trained system on the held-out clips, beside baselines that need no training and beside other samplers."""

import csv
import importlib
import json
import time
from collections.abc import Iterable
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
    batch_size: int  # clips generated at once
    seed: int  # of the noise, together with each clip's key


def mean_row(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """The mean over clips; a value undefined for some clip (NaN) is the mean of the others, or null."""
    means = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        means[name] = None if np.isnan(values).all() else round(float(np.nanmean(values)), 4)
    return means


def evaluate(
    system: str,
    clips: list[Clip],
    train: Iterable[Clip],
    checkpoint: Path,
    params: EvaluateParams,
    out: Path,
    generated: Path,
) -> None:
    """Write `out/metrics.json`, `out/samplers.csv` and `out/samplers.png`, and what was generated as a shard set."""
    generator, judge = importlib.import_module(f"models.{system}.generate"), judge_of(system)
    frames = sum(json_object(clip.members["json"])["frames"] for clip in clips)

    def rows(made: list[np.ndarray]) -> list[dict[str, float]]:
        return [judge.scores(clip, fake) for clip, fake in zip(clips, made, strict=True)]

    table, made = [], []
    for sampler in (Sampler(params.sampler, params.steps), *params.against):
        start = time.perf_counter()
        made.append(generator.regenerate(checkpoint, clips, sampler.sampler, sampler.steps, params.batch_size, params.seed))
        seconds = time.perf_counter() - start
        scored = rows(made[-1])
        table.append({"sampler": sampler.name, "seconds_per_frame": round(seconds / frames, 4)} | mean_row(scored))
        if len(table) == 1:
            per_clip = scored
    metrics = {
        "own": mean_row(per_clip) | {"seconds_per_frame": table[0]["seconds_per_frame"]},
        "baselines": {name: mean_row(rows(videos)) for name, videos in judge.baselines(clips, train).items()},
        "clips": {clip.key: mean_row([row]) for clip, row in zip(clips, per_clip, strict=True)},
        "count": {"clips": len(clips), "frames": frames},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    with (out / "samplers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    judge.sheet(clips, made).save(out / "samplers.png")
    shown = [
        Clip(clip.key, {"json": clip.members["json"], judge.MEMBER: npy_bytes(fake)})
        for clip, fake in zip(clips, made[0], strict=True)
    ]
    write_index(generated, Index.of([write_shard(generated / "00000.tar", shown)], {}))


def run(system: str) -> None:
    shards = output("shards", system_params(system).corpus)
    clips, train = list(ShardSet(shards / "test").clips()), ShardSet(shards / "train").clips()
    params = section(f"evaluate.{system}", EvaluateParams)
    with in_place(output("evaluation", system)) as out, in_place(output("generated", system)) as generated:
        evaluate(system, clips, train, output("checkpoints", system), params, out, generated)
