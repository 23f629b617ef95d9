"""`python -m tests.models.video_editing.bench SHARDS [PRESET …]`: examples made a second beside those that training takes.

In one process: frames of clips that are all in memory, and of clips that stream through a buffer of `frames_per_clip` frames
each; both without and with perturbation and silence. Then training steps, and the network in the two layouts of memory. Seconds
are of the processor, so that what else runs hardly matters; each is the best of a few.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from models.video_editing.config import PRESETS, Config
from models.video_editing.examples import TrainingExamples
from models.video_editing.training import VideoEditing

AUGMENTED = {"previous_dropout": 0.5, "previous_perturbation": 1.0, "audio_dropout": 0.1}
RUNS, TRAINED = 5, 2  # and frames of a training step


def best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def made(shards: Path, config: Config) -> float:
    """Examples a second."""
    batches = iter(DataLoader(TrainingExamples(shards, config), config.batch_size))
    next(batches)
    return config.batch_size / best(lambda: next(batches))


def trained(shards: Path, config: Config) -> float:
    """Examples a second, of a whole step on the CPU."""
    module = VideoEditing(config)
    adam = torch.optim.Adam(module.network.parameters(), config.learning_rate)
    batch = next(iter(DataLoader(TrainingExamples(shards, config), TRAINED)))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision != "32-true"):
            loss = module.training_step(batch, 0)
        adam.zero_grad()
        loss.backward()
        adam.step()
        module.average.update_parameters(module.network)

    return TRAINED / best(step)


@torch.inference_mode()
def painted(config: Config, layout: torch.memory_format) -> float:
    """Milliseconds of one evaluation of the network, for one frame."""
    network = VideoEditing(config).network.eval().to(memory_format=layout)
    images = torch.rand(3, 1, 3, config.image_size, config.image_size)
    return 1000 * best(lambda: network(*images, torch.rand(1, 4 * config.audio_width), torch.rand(1)))


def main(shards: Path, presets: list[str]) -> None:
    for name in presets:
        config = replace(PRESETS[name], loader_workers=0)
        for told, changed in (("as it is", config), ("perturbed", replace(config, **AUGMENTED))):
            rates = [made(shards, replace(changed, buffer_clips=clips)) for clips in (256, 1)]
            print(f"{name}, {told}: {rates[0]:.0f} examples/s from memory, {rates[1]:.0f} streaming", flush=True)
        print(f"{name}: {trained(shards, config):.1f} examples/s trained", flush=True)
        contiguous, channels_last = (painted(config, layout) for layout in (torch.contiguous_format, torch.channels_last))
        print(f"{name}: {contiguous:.1f} ms an evaluation, {channels_last:.1f} ms with the channels last", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["sample", "multi_speaker"])
