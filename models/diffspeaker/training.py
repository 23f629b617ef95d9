"""The objective, and its optimisation with Lightning.

B  batch     T  frames of motion     X = 3 x vertices     gamma: alphas_cumprod at a diffusion step
"""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from models.checkpoint import write_checkpoint
from models.diffspeaker.config import Config
from models.diffspeaker.examples import Batch, TrainingExamples
from models.diffspeaker.network import DiffSpeaker
from models.diffusion import add_noise
from models.given import Given
from models.learning_rate import decaying
from models.speech.base import EncoderMissing
from models.speech.encoders import fetch


def build(config: Config, given: Given) -> "SpeechToMotion":
    """What `models.trainer` trains: in the units of the training set's motion; with an encoder, from its pretrained weights.

    Raises EncoderMissing.
    """
    network = DiffSpeaker(config)
    if network.encoder is not None:
        load_pretrained(network.encoder, fetch(config.audio, config.pretrained))
    if config.normalise:
        mean_X, scale = TrainingExamples(given.train, config).statistics()
        network.motion_mean_X.copy_(torch.from_numpy(mean_X))
        network.motion_scale.fill_(scale)
    return SpeechToMotion(network)


def load_pretrained(encoder: nn.Module, folder: Path) -> None:
    """Weights of wav2vec2-base or hubert-base, as the hub has them, into `encoder`. Raises EncoderMissing."""
    from transformers import AutoModel

    loaded = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    weights, expected = loaded.state_dict(), encoder.state_dict()
    different = sorted(
        name
        for name in weights.keys() | expected.keys()
        if name not in weights or name not in expected or weights[name].shape != expected[name].shape
    )
    if different:
        raise EncoderMissing(f"{folder} holds no base model of wav2vec 2.0 or HuBERT: {', '.join(different[:3])} … differ")
    encoder.load_state_dict(weights)


def reconstruction(predicted_BTX: Tensor, x0_BTX: Tensor, frames_B: Tensor, velocity_weight: float, normalised: bool) -> Tensor:
    """Mean squared error of motion, plus `velocity_weight` times that of its differences from frame to frame.

    As released the means are over the padded batch, padding counting as zeros: a short clip in a long batch weighs less, and
    its last frame's error comes again as that of a velocity. `normalised`: over real frames, and differences between them.
    """
    real_BT1 = (torch.arange(x0_BTX.shape[1], device=x0_BTX.device) < frames_B[:, None])[..., None]
    error_BTX = torch.where(real_BT1, predicted_BTX - x0_BTX, 0.0)
    velocity_BTX = error_BTX.diff(dim=1)
    if not normalised:
        return error_BTX.square().mean() + velocity_weight * mean_of_squares(velocity_BTX, velocity_BTX.numel())
    velocity_BTX = torch.where(real_BT1[:, 1:], velocity_BTX, 0.0)
    frames, width = int(frames_B.sum()), x0_BTX.shape[2]
    differences = frames - len(frames_B)
    return mean_of_squares(error_BTX, frames * width) + velocity_weight * mean_of_squares(velocity_BTX, differences * width)


def mean_of_squares(values: Tensor, count: int) -> Tensor:
    """Of `count` values; 0 of none, as a clip of one frame has no velocity."""
    return values.square().sum() / max(count, 1)


def objective(network: DiffSpeaker, batch: Batch, step_B: Tensor, gamma_B: Tensor, epsilon_BTX: Tensor) -> Tensor:
    """The loss of one batch, noised with `epsilon` to `gamma`, the noise level of diffusion step `step`: x0-prediction."""
    config = network.config
    features = network.features(batch.audio, batch.audio_sizes)
    heard_BTD = network.heard(*features, batch.frames)
    x0_BTX = network.normalised(batch.motion)
    x_BTX = add_noise(x0_BTX, epsilon_BTX, gamma_B[:, None, None])
    predicted_BTX = network(x_BTX, step_B, batch.style, heard_BTD, batch.frames)
    return reconstruction(predicted_BTX, x0_BTX, batch.frames, config.velocity_weight, config.length_normalised)


class SpeechToMotion(LightningModule):
    """Trains `network`."""

    def __init__(self, network: DiffSpeaker):
        super().__init__()
        self.network, self.config = network, network.config
        self.alphas_cumprod_N: Tensor
        alphas_cumprod_N = self.config.noise_schedule.alphas_cumprod(self.config.train_timesteps).float()
        self.register_buffer("alphas_cumprod_N", alphas_cumprod_N, persistent=False)

    def _loss(self, batch: Batch, generator: torch.Generator | None) -> Tensor:
        count, device = len(batch.motion), self.device
        step_B = torch.randint(len(self.alphas_cumprod_N), (count,), device=device, generator=generator)
        epsilon_BTX = torch.randn(batch.motion.shape, device=device, generator=generator)
        return objective(self.network, batch, step_B, self.alphas_cumprod_N[step_B], epsilon_BTX)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(batch, generator=None)
        self.log("train_loss", loss, batch_size=len(batch.motion))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Each batch has the same steps and noise every time, so that the curve is smooth."""
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        self.log("val_loss", self._loss(batch, generator), batch_size=len(batch.motion), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config = self.config
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        adam = torch.optim.AdamW(trained, config.learning_rate, weight_decay=config.weight_decay)
        return decaying(adam, config.learning_rate_decay, config.steps)

    def save(self, folder: Path, card: str) -> None:
        """Writes the weights as a checkpoint that `generate.load` reads."""
        write_checkpoint(folder, self.network, self.config, card)
