"""`python -m tests.models.difftalk.bench CHECKPOINT LATENTS SHARDS [paper_256]`: what cached latents and batched sampling save.

CHECKPOINT  of difftalk     LATENTS  folder of the stage `latents`     SHARDS  shard set whose first clip is painted

A training step on cached latents beside one that encodes frame, masked frame and reference, as released; sampling beside the
released loop, 200 steps, each frame with the one before as its reference, on the same weights. With `paper_256`, steps at real
size, of one example and untrained: a matter of minutes and of many gigabytes.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.shardset import ShardSet
from models.autoencoder.config import PRESETS as AUTOENCODERS
from models.autoencoder.generate import load as load_autoencoder
from models.autoencoder.network import Autoencoder
from models.difftalk.config import PRESETS, Config
from models.difftalk.examples import AUTOENCODER, Example, TrainingExamples
from models.difftalk.generate import Painter, load
from models.difftalk.network import HEARD, LANDMARKS
from models.difftalk.training import DiffTalk
from stages.metrics import image

FRAMES, RUNS = 12, 5  # painted by each sampler; steps of which the best counts


def best(run: Callable[[], object], runs: int) -> float:
    """Seconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def steps(config: Config, autoencoder: Autoencoder, batch: Example, runs: int) -> tuple[float, float]:
    """Seconds of a training step on cached latents, and of one that encodes the three images of each example."""
    module = DiffTalk(config, Path(AUTOENCODER))
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    adam = torch.optim.AdamW([p for p in module.network.parameters() if p.requires_grad], config.learning_rate)
    images = torch.rand(3 * len(batch.latents), 3, config.image_size, config.image_size)

    def cached() -> None:
        adam.zero_grad()
        module.training_step(batch, 0).backward()
        adam.step()

    def fresh() -> None:
        with torch.no_grad():
            autoencoder.encode(images)
        cached()

    cached()
    return best(cached, runs), best(fresh, runs)


def trained(checkpoint: Path, latents: Path) -> None:
    config = replace(load(checkpoint)[0].config, loader_workers=0)
    batch = next(iter(DataLoader(TrainingExamples(latents / "train", config), config.batch_size)))
    told("a step of this preset", *steps(config, load_autoencoder(latents / AUTOENCODER), batch, RUNS))


def at_real_size() -> None:
    config = PRESETS["paper_256"]
    size = (config.latent_channels, config.latent_size, config.latent_size)
    batch = Example(
        *(torch.randn(1, *size) for _ in range(3)), torch.randn(1, HEARD, config.audio_width), torch.randn(1, len(LANDMARKS), 2)
    )
    told("a step of paper_256", *steps(config, Autoencoder(AUTOENCODERS["paper_256"]).eval(), batch, 1))


def told(what: str, cached: float, fresh: float) -> None:
    print(f"{what}: {cached:.3f} s on cached latents, {fresh:.3f} s encoding; ratio {cached / fresh:.2f}", flush=True)


def sampled(checkpoint: Path, shards: Path) -> None:
    clip = next(ShardSet(shards).clips())
    released = 0.0
    for sampler, count in (("ddim progressive", 200), ("ddim", 10), ("ddim smoothed", 10), ("dpm++", 10), ("ddim", 5)):
        painter = Painter(checkpoint, sampler, count, 8, 0)
        frames = painter.frames_of(clip)[1 : FRAMES + 1]
        list(painter.paint(frames[:1], None))
        start = time.perf_counter()
        faces = list(painter.paint(frames, None))
        seconds = (time.perf_counter() - start) / len(faces)
        released = released or seconds
        real, boxes = (np.stack([getattr(frame, name) for frame in frames]) for name in ("real", "box"))
        row = image.scores(real, np.stack(faces), boxes)
        print(
            f"{sampler} {count}: {seconds:.3f} s per frame, {released / seconds:.1f} times the released loop's speed; "
            f"in the mask {row['psnr_mask']:.2f} dB, SSIM {row['ssim_mask']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    trained(Path(sys.argv[1]), Path(sys.argv[2]))
    if sys.argv[4:]:
        at_real_size()
    sampled(Path(sys.argv[1]), Path(sys.argv[3]))
