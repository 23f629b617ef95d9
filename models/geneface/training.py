"""The objectives of the torso's two forms, and their optimisation with Lightning.

N  pixels of one frame     S  pixels of a picture's side
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor

from data.shardset import ShardSet, npy_array
from models.checkpoint import write_checkpoint
from models.geneface.config import Config
from models.geneface.examples import HEAD, POSTNET, Below, Example, background_of
from models.geneface.network import GridTorso, Layer, Seen, Torso, composed, picture, places, pose_vector
from models.geneface.network import build as build_torso
from models.given import Given
from models.learning_rate import decaying
from models.noise import seed_of
from models.radiance.cameras import pixels, rays
from models.streaming import rank_and_ranks


def build(config: Config, given: Given) -> "PaintedTorso":
    """What `models.trainer` trains, between the head that painted the clips of `given.train` and their background.

    Raises BadCheckpoint, WrongConfig for a head that paints pictures of another size, and ValueError for unfit clips.
    """
    Below.of(config, given.train)
    torso, backgrounds, poses = build_torso(config), [], []
    for clip in ShardSet(given.train).clips():
        backgrounds.append(background_of(clip, config.image_size))
        poses.append(npy_array(clip.members["pose.npy"]))
    torso.background.copy_(torch.from_numpy(np.median(backgrounds, axis=0).round().astype(np.uint8)))
    torso.first_pose.copy_(torch.from_numpy(poses[0][0]))
    if isinstance(torso, GridTorso) and config.whitening:
        torso.whiten(pose_vector(torch.from_numpy(np.concatenate(poses).astype(np.float32)), config.form))
    torso.stand_in.fill_(sum(map(len, poses)) - 1)  # a torso drifts, and other films come later
    return PaintedTorso(torso, {name: given.train.parent / name for name in (HEAD, POSTNET)})


def drawn_pixels(config: Config, generator: torch.Generator) -> Tensor:
    """(N,) pixels of a step, row by row, with replacement: `lower_half` of them in the lower half, the others in the upper."""
    of_all, device = config.image_size**2, generator.device
    if config.lower_half == 0:
        return torch.randint(of_all, (config.pixels,), generator=generator, device=device)
    middle, below = config.image_size // 2 * config.image_size, round(config.lower_half * config.pixels)
    lower_N = torch.randint(middle, of_all, (below,), generator=generator, device=device)
    return torch.cat([lower_N, torch.randint(middle, (config.pixels - below,), generator=generator, device=device)])


def seen_at(torso: Torso, example: Example, chosen_N: Tensor) -> Seen:
    """What the torso is painted from at some pixels (numbered row by row) of an example without B."""
    size = torso.config.image_size
    seen_by_first = None
    if torso.in_front:
        x, y = example.center.tolist()
        seen_by_first = rays(torso.first_pose, example.focal.item(), (x, y), pixels(size, size, chosen_N.device)[chosen_N])
    return Seen(
        places(size, chosen_N),
        pose_vector(example.pose[None], torso.config.form)[0],
        example.head.flatten(0, 1)[chosen_N] / 255,
        example.background.flatten(0, 1)[chosen_N] / 255,
        int(example.number),
        seen_by_first,
        example.sound if torso.in_front else None,
    )


def objective(torso: Torso, layer: Layer, seen: Seen, example: Example, chosen_N: Tensor) -> Tensor:
    """The mean squared error, and in the grid form the entropy of the opacity (release).

    The grid form is compared with the torso as it is without the head; the mlp form, which is before the head, with the frame.
    """
    if layer.coarse is not None:
        frame_N3 = example.image.flatten(0, 1)[chosen_N] / 255
        return (composed(layer, True, seen) - frame_N3).square().mean() + (layer.coarse - frame_N3).square().mean()
    behind_N3 = example.behind.flatten(0, 1)[chosen_N] / 255
    error = (layer.color + (1 - layer.opacity[:, None]) * seen.behind - behind_N3).square().mean()
    opacity_N = layer.opacity.float().clamp(1e-5, 1 - 1e-5)  # in 16 bits, 1 - 1e-5 is 1
    entropy = -(opacity_N * opacity_N.log2() + (1 - opacity_N) * (1 - opacity_N).log2()).mean()
    return error + torso.config.entropy_weight * entropy


class PaintedTorso(LightningModule):
    """Trains `network`; `below` are the checkpoints that are saved with it."""

    def __init__(self, network: Torso, below: dict[str, Path]):
        super().__init__()
        self.network, self.below = network, below

    def training_step(self, batch: Example, batch_idx: int) -> Tensor:
        config, example = self.network.config, Example(*(tensor[0] for tensor in batch))
        # Of the step, so that a training that was killed draws what it would have drawn.
        seed = seed_of(config.seed, f"{self.global_step} {rank_and_ranks()[0]}") % 2**63
        generator = torch.Generator(self.device).manual_seed(seed)
        chosen_N = drawn_pixels(config, generator)
        seen = seen_at(self.network, example, chosen_N)
        layer = self.network(seen, generator)
        loss = objective(self.network, layer, seen, example, chosen_N)
        # The mlp form's torso may vanish and not come back (AD-NeRF, GeneFace): then train with another seed.
        self.log_dict({"train_loss": loss, "opacity": layer.opacity.mean()})
        return loss

    def validation_step(self, batch: Example, batch_idx: int) -> None:
        """The mean squared error of the whole picture, at every fourth pixel of every fourth row."""
        example, size = Example(*(tensor[0] for tensor in batch)), self.network.config.image_size
        chosen_N = torch.arange(size * size, device=self.device).view(size, size)[::4, ::4].flatten()
        seen = seen_at(self.network, example, chosen_N)._replace(frame=int(self.network.stand_in))
        error = (picture(self.network, seen) - example.image.flatten(0, 1)[chosen_N] / 255).square().mean()
        self.log("val_loss", error, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        config = self.network.config
        grids = [parameter for name, parameter in self.network.named_parameters() if name.startswith("grid.")]
        others = [parameter for name, parameter in self.network.named_parameters() if not name.startswith("grid.")]
        groups: list[dict[str, Any]] = [{"params": others}]
        if grids:
            groups.append({"params": grids, "lr": config.grid_learning_rate})
        adam = torch.optim.Adam(groups, config.learning_rate, eps=1e-15)
        return decaying(adam, config.learning_rate_decay, config.steps)

    def save(self, folder: Path, card: str) -> None:
        """Writes the torso, and all that is below it, as a checkpoint that `generate.load` reads."""
        write_checkpoint(folder, self.network, self.network.config, card, self.below)
