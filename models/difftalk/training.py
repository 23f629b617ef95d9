"""The objective, and its optimisation with Lightning.

B  batch     C, h, w  latents     T  steps of the training schedule
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.averaging import AveragingModule
from models.checkpoint import write_checkpoint
from models.difftalk.config import Config
from models.difftalk.examples import AUTOENCODER, Example
from models.difftalk.network import DiffTalkUNet
from models.diffusion import add_noise
from models.given import Given
from models.learning_rate import decaying


def build(config: Config, given: Given) -> "DiffTalk":
    """What `models.trainer` trains, on top of the autoencoder that made the latents of `given.train`."""
    return DiffTalk(config, given.train.parent / AUTOENCODER)


def objective(
    network: DiffTalkUNet, config: Config, batch: Example, step_B: Tensor, gamma_B: Tensor, epsilon_BChw: Tensor
) -> Tensor:
    """Equation 3: mean squared error of the predicted noise (or clean latents), inside and outside of the mask alike."""
    noisy_BChw = add_noise(batch.latents, epsilon_BChw, gamma_B[:, None, None, None])
    biases_B1K = network.biases(network.condition(batch.audio, batch.landmarks))
    output_BChw = network(noisy_BChw, batch.masked, batch.reference, step_B, biases_B1K)
    target_BChw = epsilon_BChw if config.prediction == "epsilon" else batch.latents
    return (output_BChw - target_BChw).square().mean()


def averaged(decay: float, averages: Any, values: Any, count: Tensor | int) -> None:
    """Moves the averages towards the values, by more in the first steps (release)."""
    decay = min(decay, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(averages, values, 1 - decay)


class DiffTalk(AveragingModule):
    """The moving average of the weights validates and is saved."""

    network: DiffTalkUNet

    def __init__(self, config: Config, autoencoder: Path):
        super().__init__(DiffTalkUNet(config), partial(averaged, config.ema_decay))
        self.config, self.autoencoder = config, autoencoder
        self.alphas_cumprod_T: Tensor
        alphas_cumprod_T = config.noise_schedule.alphas_cumprod(config.train_timesteps).float()
        self.register_buffer("alphas_cumprod_T", alphas_cumprod_T, persistent=False)

    def _loss(self, network: DiffTalkUNet, batch: Example, generator: torch.Generator | None) -> Tensor:
        steps, device = len(self.alphas_cumprod_T), self.device
        step_B = torch.randint(steps, (len(batch.latents),), device=device, generator=generator)
        epsilon_BChw = torch.randn(batch.latents.shape, device=device, generator=generator)
        return objective(network, self.config, batch, step_B, self.alphas_cumprod_T[step_B], epsilon_BChw)

    def training_step(self, batch: Example, batch_idx: int) -> Tensor:
        loss = self._loss(self.network, batch, generator=None)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Example, batch_idx: int) -> None:
        """The loss of the averaged weights; each batch has the same noise every time, so that the curve is smooth."""
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        loss = self._loss(self.average.module, batch, generator)  # type: ignore[arg-type]  # a copy of network
        self.log("val_loss", loss, batch_size=len(batch.latents), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config = self.config
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        adam = torch.optim.AdamW(trained, config.learning_rate, weight_decay=config.weight_decay)
        return decaying(adam, config.learning_rate_decay, config.steps)

    def save(self, folder: Path, card: str) -> None:
        """Writes the averaged weights, and the autoencoder below them, as a checkpoint that `generate.load` reads."""
        write_checkpoint(folder, self.average.module, self.config, card, {AUTOENCODER: self.autoencoder})
