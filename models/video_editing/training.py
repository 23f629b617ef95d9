"""The objective, and its optimisation with Lightning.

B  batch     H, W  pixels     T  steps of the training schedule
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models.averaging import AveragingModule
from models.checkpoint import write_checkpoint
from models.diffusion import add_noise
from models.given import Given
from models.images import box_mask, to_unit
from models.learning_rate import decaying
from models.video_editing.config import Config
from models.video_editing.examples import Example
from models.video_editing.network import VideoEditingUNet


def build(config: Config, given: Given) -> "VideoEditing":
    """What `models.trainer` trains."""
    return VideoEditing(config)


def random_gamma(alphas_cumprod_T: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Noise levels (count,) between neighbouring steps, each pair of them as likely (Palette, arXiv 2111.05826)."""
    device = alphas_cumprod_T.device
    step = torch.randint(1, len(alphas_cumprod_T), (count,), device=device, generator=generator)
    fraction = torch.rand(count, device=device, generator=generator)
    return torch.lerp(alphas_cumprod_T[step], alphas_cumprod_T[step - 1], fraction)


def objective(network: nn.Module, config: Config, batch: Example, gamma_B: Tensor, epsilon_B3HW: Tensor) -> Tensor:
    """Equation 5: squared error of the predicted noise (or clean frame) inside the mask.

    As released the mean is over all pixels, those outside counting as zeros: a frame weighs what its mask covers of it.
    """
    frame_B3HW, previous_B3HW, identity_B3HW = map(to_unit, batch[:3])
    mask_B1HW = box_mask(batch.box, config.image_size)
    noised_B3HW = add_noise(frame_B3HW, epsilon_B3HW, gamma_B[:, None, None, None])
    noisy_B3HW = torch.where(mask_B1HW, noised_B3HW, frame_B3HW)
    output_B3HW = network(noisy_B3HW, previous_B3HW, identity_B3HW, batch.audio, gamma_B)
    target_B3HW = epsilon_B3HW if config.prediction == "epsilon" else frame_B3HW
    return torch.where(mask_B1HW, output_B3HW - target_B3HW, 0.0).square().mean()


class VideoEditing(AveragingModule):
    """The moving average of the weights validates and is saved."""

    def __init__(self, config: Config):
        super().__init__(VideoEditingUNet(config), get_ema_multi_avg_fn(config.ema_decay))
        self.config = config
        self.alphas_cumprod_T: Tensor
        alphas_cumprod_T = config.noise_schedule.alphas_cumprod(config.train_timesteps).float()
        self.register_buffer("alphas_cumprod_T", alphas_cumprod_T, persistent=False)

    def _loss(self, network: nn.Module, batch: Example, generator: torch.Generator | None) -> Tensor:
        size = self.config.image_size
        gamma_B = random_gamma(self.alphas_cumprod_T, len(batch.frame), generator)
        epsilon_B3HW = torch.randn(len(batch.frame), 3, size, size, device=self.device, generator=generator)
        return objective(network, self.config, batch, gamma_B, epsilon_B3HW)

    def training_step(self, batch: Example, batch_idx: int) -> Tensor:
        loss = self._loss(self.network, batch, generator=None)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Example, batch_idx: int) -> None:
        """The loss of the averaged weights; each batch has the same noise every time, so that the curve is smooth."""
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        self.log("val_loss", self._loss(self.average, batch, generator), batch_size=len(batch.frame), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config = self.config
        adam = torch.optim.Adam(self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        return decaying(adam, config.learning_rate_decay, config.steps)

    def save(self, folder: Path, card: str) -> None:
        """Writes the averaged weights as a checkpoint that `generate.load` reads."""
        write_checkpoint(folder, self.average.module, self.config, card)
