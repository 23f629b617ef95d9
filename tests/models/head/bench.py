"""`python -m tests.models.head.bench [SHARDS [KEPT]]`: what a picture of a head costs, by grids and by deep networks.

SHARDS  of one person, with train, val and test (data/shards/webcam)
KEPT    folder of the heads that are trained for it, which a second run takes as they are (data/.work/bench/head)

Trained at 64², and scored on held-out frames: deep networks, three eighths as wide as published and with a quarter of the
samples; and grids, by the preset `sample` for more and more steps, of which the one as good as the deep networks is compared
with them. Of each form as published the cost alone is measured, untrained, as no film of seconds can teach it. A deep network is
asked for the same samples of every ray, whatever it learnt: its time above 64² is that at 64², times the rays. An untrained grid
knows no empty space: it takes at most what it takes here. On a GPU, if there is one; else on one thread, in seconds of its own
time, which others at work on the machine change less than the clock's.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from data.shardset import ShardSet
from models.given import Given
from models.head.config import MAY, MAY_MLP, SAMPLE, SAMPLE_MLP, Config
from models.head.examples import Camera, FilmedClip, decode_clip, person_of, reduced_places
from models.head.generate import Picture, load, picture
from models.head.network import Head, build
from stages.metrics import image
from tests.models.trained import KEPT, trained

SIZE = 64  # pixels, of what is trained and scored
SIZES = (64, 128, 512)  # of what is timed
EVERY = 4  # of the held-out frames, those scored
RUNS, ENOUGH = 3, 20.0  # of which the best counts; seconds, after which none begins
EQUAL = 0.3  # dB
GRID = replace(SAMPLE, image_size=SIZE)
LENGTHS = (200, 300, 500, 1000)  # steps, of which the learning rate and the lips' share go by
MLP = replace(
    SAMPLE_MLP,
    image_size=SIZE,
    hidden=96,
    coarse_samples=24,
    fine_samples=24,
    reach=0.16,  # the head is in it, and so it needs fewer samples than the published 0.3
    behind="random",
    face_share=0.5,
    rays=96,
    batch_size=4,
    learning_rate=2e-3,
    steps=800,
    decay_steps=800,
    val_every=50,
)
PUBLISHED = {"grid, published": replace(MAY, scene="canonical"), "mlp, published": MAY_MLP}


class Cost(NamedTuple):
    """Of one picture."""

    samples: float  # of a ray, the mean
    seconds: float


def clock(device: torch.device) -> float:
    """Seconds."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    times: list[float] = []
    while len(times) < RUNS and sum(times) < ENOUGH:
        start = clock(device)
        run()
        times.append(clock(device) - start)
    return min(times)


def seen(head: Head, clip: FilmedClip, index: int, size: int) -> Picture:
    """A frame of the clip in `size`² pixels, as the head has it."""
    device = head.mean_X.device
    scale = size / len(clip.behind[index])
    x, y = reduced_places(np.array(clip.camera.center), scale).tolist()
    behind = np.array(Image.fromarray(clip.behind[index]).resize((size, size)))
    code_E = head.codes(torch.from_numpy(clip.motion[index : index + 1]).to(device))[0]
    pose_44 = torch.from_numpy(clip.poses[index]).to(device)
    return picture(head, code_E, pose_44, Camera(clip.camera.focal * scale, (x, y)), torch.from_numpy(behind).to(device) / 255)


def costs(head: Head, clip: FilmedClip) -> list[Cost]:
    """Of the clip's first frame, in each of SIZES."""
    device, found = head.mean_X.device, []
    scaled = head.config.form == "mlp" and device.type == "cpu"
    for size in SIZES[:1] if scaled else SIZES:
        samples = seen(head, clip, 0, size).samples.float().mean().item()
        found.append(Cost(samples, best(lambda size=size: seen(head, clip, 0, size), device)))  # type: ignore[misc]
    return [Cost(found[0].samples, found[0].seconds * (size / SIZES[0]) ** 2) for size in SIZES] if scaled else found


def psnr(head: Head, clips: Sequence[FilmedClip]) -> float:
    """dB, the mean over frames, then clips."""
    scores = []
    for clip in clips:
        chosen = range(0, len(clip.images), EVERY)
        made = [(255 * seen(head, clip, index, SIZE).color).round().to(torch.uint8).cpu().numpy() for index in chosen]
        scores.append(image.psnr(clip.images[::EVERY], np.stack(made)).mean())
    return float(np.mean(scores))


def decoded(shards: Path, config: Config, person_from: Path) -> list[FilmedClip]:
    return [decode_clip(clip, config, person_of(person_from)) for clip in ShardSet(shards).clips()]


def lasting(steps: int) -> Config:
    """The grids' configuration, for so many steps."""
    return replace(GRID, steps=steps, decay_steps=steps, ambient_steps=steps, val_every=steps, log_every=min(20, steps))


def row(name: str, quality: str, cost: Sequence[Cost]) -> str:
    times = " | ".join(f"{1000 * found.seconds:.0f}" for found in cost)
    return f"| {name} | {quality} | {cost[0].samples:.1f} | {times} |"


def times_as_fast(fast: Sequence[Cost], slow: Sequence[Cost]) -> str:
    return ", ".join(f"{s.seconds / f.seconds:.0f}" for f, s in zip(fast, slow, strict=True))


def table(shards: Path, kept: Path, device: torch.device) -> Iterator[str]:
    """Its lines, as Markdown has tables."""
    given = Given(shards / "train", shards / "val")
    held_out = [clip for part in ("val", "test") for clip in decoded(shards / part, GRID, given.train)]
    mean = np.concatenate([clip.images for clip in decoded(given.train, GRID, given.train)]).mean(axis=0)
    blind = np.mean([image.psnr(clip.images, np.broadcast_to(mean, clip.images.shape)).mean() for clip in held_out])
    yield f"{sum(len(clip.images) for clip in held_out)} held-out frames; the mean of the training frames has {blind:.2f} dB.\n"
    yield f"| head, on {device.type} | PSNR at {SIZE}², dB | samples of a ray | {' | '.join(f'ms, {size}²' for size in SIZES)} |"
    yield "|---|---|---|" + "---|" * len(SIZES)

    quality: dict[str, float] = {}
    cost: dict[str, list[Cost]] = {}
    for name, config in ({"mlp": MLP} | {f"grid, {steps} steps": lasting(steps) for steps in LENGTHS}).items():
        head = load(trained("head", config, given, kept / name.replace(", ", "_").replace(" ", "_"))).to(device)
        quality[name], cost[name] = psnr(head, held_out), costs(head, held_out[0])
        yield row(name, f"{quality[name]:.2f}", cost[name])
    for name, config in PUBLISHED.items():
        cost[name] = costs(build(config).eval().to(device), held_out[0])
        yield row(name, "untrained", cost[name])

    nearest = min((name for name in quality if name != "mlp"), key=lambda name: abs(quality[name] - quality["mlp"]))
    aside = quality[nearest] - quality["mlp"]
    yield f"\n{nearest}: {aside:+.2f} dB of mlp ({'equal' if abs(aside) <= EQUAL else 'not equal'}: within {EQUAL}), and "
    yield f"{times_as_fast(cost[nearest], cost['mlp'])} times as fast at {', '.join(f'{size}²' for size in SIZES)}."
    fast, slow = PUBLISHED
    yield f"As published, {times_as_fast(cost[fast], cost[slow])} times."


if __name__ == "__main__":
    torch.set_num_threads(1)
    named = [Path(word) for word in sys.argv[1:]]
    of, keep = (*named, *(Path("data/shards/webcam"), KEPT / "head")[len(named) :])
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for line in table(of, keep, on):
        print(line, flush=True)
