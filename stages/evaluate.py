"""Score a trained system on the held-out clips, beside two baselines that need no training and beside other samplers."""

import csv
import importlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.files import in_place
from data.media.video import decode_frames
from data.shardset import Clip, Index, ShardSet, npy_array, npy_bytes, write_index, write_shard
from stages.metrics.image import scores
from stages.metrics.mouth import opening_correlation
from stages.params import output, section, system_params


@dataclass(frozen=True)
class Sampler:
    """How noise becomes a frame."""

    sampler: str  # "ddpm" (ancestral, as released) or "ddim"
    steps: int  # evaluations of the network for each frame

    @property
    def name(self) -> str:
        return f"{self.sampler} {self.steps}"


@dataclass(frozen=True)
class EvaluateParams:
    """`evaluate` in params.yaml."""

    sampler: str  # the sampler whose frames are scored as the system's own, and rendered
    steps: int  # its steps
    against: list[Sampler]  # other samplers, for the table of quality against time
    batch_size: int  # clips generated at once
    seed: int  # of the noise, together with each clip's key


def held_out(corpus: str) -> list[Clip]:
    """The test clips of `corpus`."""
    return list(ShardSet(output("shards", corpus) / "test").clips())


def score(real: Sequence[np.ndarray], fake: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """One row a clip. Frame 0 is given to the system, so it does not count."""
    rows = []
    for real_THW3, fake_THW3, boxes_T4 in zip(real, fake, boxes, strict=True):
        row = scores(real_THW3[1:], fake_THW3[1:], boxes_T4[1:])
        rows.append(row | {"mouth_correlation": opening_correlation(real_THW3, fake_THW3)})
    return rows


def mean_row(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """The mean over clips; a value undefined for some clip (NaN) is the mean of the others, or null."""
    means = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        means[name] = None if np.isnan(values).all() else round(float(np.nanmean(values)), 4)
    return means


def paste_inside(frames_THW3: np.ndarray, patch_THW3: np.ndarray, boxes_T4: np.ndarray) -> np.ndarray:
    """`frames` with each frame's box taken from `patch` (of T frames, or of one for all)."""
    pasted = frames_THW3.copy()
    for index, (x0, y0, x1, y1) in enumerate(boxes_T4):
        pasted[index, y0:y1, x0:x1] = patch_THW3[min(index, len(patch_THW3) - 1), y0:y1, x0:x1]
    return pasted


def comparison_sheet(rows: list[np.ndarray], columns: int = 8) -> Image.Image:
    """Videos `(T, H, W, 3)` one below another, `columns` moments of each, twice as large."""
    moments = np.linspace(1, len(rows[0]) - 1, columns).round().astype(int)
    sheet = np.concatenate([np.concatenate(list(video[moments]), axis=1) for video in rows], axis=0)
    return Image.fromarray(sheet).resize((2 * sheet.shape[1], 2 * sheet.shape[0]), Image.Resampling.LANCZOS)


def evaluate(system: str, clips: list[Clip], checkpoint: Path, params: EvaluateParams, out: Path, generated: Path) -> None:
    """Write `out/metrics.json`, `out/samplers.csv` and `out/samplers.png`, and the generated frames as a shard set."""
    real = [decode_frames(clip.members["mp4"]) for clip in clips]
    boxes = [npy_array(clip.members["mask.npy"]) for clip in clips]
    generator = importlib.import_module(f"models.{system}.generate")
    frames_each = [len(frames) - 1 for frames in real]

    table, samples = [], {}
    for sampler in (Sampler(params.sampler, params.steps), *params.against):
        start = time.perf_counter()
        samples[sampler.name] = generator.regenerate(
            checkpoint, clips, sampler.sampler, sampler.steps, params.batch_size, params.seed
        )
        seconds = time.perf_counter() - start
        rows = score(real, samples[sampler.name], boxes)
        table.append({"sampler": sampler.name, "seconds_per_frame": round(seconds / sum(frames_each), 4)} | mean_row(rows))
        if len(table) == 1:
            own, per_clip = samples[sampler.name], rows

    identity = [paste_inside(frames, frames[:1], box) for frames, box in zip(real, boxes, strict=True)]
    previous = [paste_inside(frames, np.roll(frames, 1, axis=0), box) for frames, box in zip(real, boxes, strict=True)]
    metrics = {
        system: mean_row(per_clip) | {"seconds_per_frame": table[0]["seconds_per_frame"]},
        "copy_identity_frame": mean_row(score(real, identity, boxes)),
        "copy_previous_real_frame": mean_row(score(real, previous, boxes)),
        "clips": {clip.key: mean_row([row]) for clip, row in zip(clips, per_clip, strict=True)},
        "count": {"clips": len(clips), "frames": sum(frames_each)},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    with (out / "samplers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    comparison_sheet([real[0], *(videos[0] for videos in samples.values())]).save(out / "samplers.png")

    shown = [
        Clip(clip.key, {"json": clip.members["json"], "generated.npy": npy_bytes(frames)})
        for clip, frames in zip(clips, own, strict=True)
    ]
    write_index(generated, Index.of([write_shard(generated / "00000.tar", shown)], {}))


def run(system: str) -> None:
    clips = held_out(system_params(system).corpus)
    params = section("evaluate", EvaluateParams)
    checkpoint = output("checkpoints", system)
    with in_place(output("evaluation", system)) as out, in_place(output("generated", system)) as generated:
        evaluate(system, clips, checkpoint, params, out, generated)
