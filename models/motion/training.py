"""The objective, and its optimisation with Lightning.

B  batch     T  frames     t = T/4  latents     X  204 numbers of a frame     Z  latent channels
"""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from models.checkpoint import write_checkpoint
from models.given import Given
from models.learning_rate import decaying
from models.motion.config import SYNCNET, Config
from models.motion.examples import Batch
from models.motion.network import STRIDE, Made, MotionVAE
from models.syncnet import expert
from models.syncnet.network import SyncNet

EXPERT = "expert."  # of its tensors' names in the module's state


def build(config: Config, given: Given) -> "SpeechToMotion":
    """What `models.trainer` trains, below the sync expert's judgement. ValueError if the expert hears another column."""
    folder = given.beside[SYNCNET]
    network = expert.load(folder)
    theirs, ours = ((hears.audio, hears.audio_width, hears.speech_encoder) for hears in (network.config, config))
    if theirs != ours:
        raise ValueError(f"the sync expert of {folder} hears {theirs}, and this training {ours}: train the expert on the same")
    return SpeechToMotion(config, network, folder)


def reconstruction(decoded_BTX: Tensor, motion_BTX: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared errors over real frames: of the motion, and of its differences from frame to frame.

    As released, the second counts the first frame of all for a difference, from nothing, and its mean is over the frames.
    """
    error_BTX = torch.where(mask_BT[..., None].bool(), decoded_BTX - motion_BTX, 0.0)
    # From the last real frame to padding there is no difference.
    steps_BTX = torch.where(mask_BT[:, 1:, None].bool(), error_BTX.diff(dim=1), 0.0)
    values = mask_BT.sum() * motion_BTX.shape[2]
    return error_BTX.square().sum() / values, (steps_BTX.square().sum() + error_BTX[:, 0].square().sum()) / values


def divergence(made: Made, mask_BT: Tensor) -> Tensor:
    """KL divergence of the latents from the prior, nats for each of their channels, by the one sample there is.

    log N(z; mean, std) - log N(f(z); 0, 1), where the flow f changes no volume.
    """
    mask_Bt = mask_BT[:, ::STRIDE].to(made.z.dtype)
    scaled_BZt = (made.z - made.mean) / made.log_std.exp()
    nats_BZt = 0.5 * (made.noise.square() - scaled_BZt.square()) - made.log_std
    return (nats_BZt * mask_Bt[:, None]).sum() / (mask_Bt.sum() * nats_BZt.shape[1])


class SpeechToMotion(LightningModule):
    """Trains `network`; `expert` is frozen, and in no state."""

    def __init__(self, config: Config, expert_network: SyncNet, expert_folder: Path):
        super().__init__()
        self.config, self.expert_folder = config, expert_folder
        self.network = MotionVAE(config)
        self.expert = expert_network
        # Whether the expert counts: a validation has found its loss low, once for all, also after a training was killed.
        self.synced: Tensor
        self.register_buffer("synced", torch.tensor(False))
        self.sync_sums: list[Tensor] = []  # (2,) of each batch of a validation under way: losses added up, and utterances

    def train(self, mode: bool = True) -> "SpeechToMotion":
        super().train(mode)
        self.expert.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if not name.startswith(EXPERT)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] |= {EXPERT + name: tensor for name, tensor in self.expert.state_dict().items()}

    def _losses(self, batch: Batch, generator: torch.Generator | None) -> tuple[Made, dict[str, Tensor]]:
        """What is made of a batch, and its losses but for the expert's; "loss" is their weighted sum."""
        made = self.network(batch.motion, batch.speech, batch.mask, generator)
        mse, continuity = reconstruction(made.motion, batch.motion, batch.mask)
        kl = divergence(made, batch.mask)
        loss = mse + self.config.continuity_weight * continuity + self.config.kl_weight * kl
        return made, {"loss": loss, "mse": mse, "continuity": continuity, "kl": kl}

    def _sync_loss(self, batch: Batch, motion_BTX: Tensor, generator: torch.Generator | None) -> Tensor:
        clips = self.config.sync_clips
        return expert.sync_loss(self.expert, batch.speech, motion_BTX, batch.mask, clips, generator)

    def _noisy(self, batch: Batch) -> Batch:
        """With what training hears beside the sound."""
        noise = self.config.audio_noise * self.config.audio_std
        return batch._replace(speech=batch.speech + noise * torch.randn_like(batch.speech)) if noise else batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        made, losses = self._losses(self._noisy(batch), generator=None)
        if self.synced and self.config.sync_weight:
            losses["sync"] = self._sync_loss(batch, made.motion, generator=None)
            losses["loss"] = losses["loss"] + self.config.sync_weight * losses["sync"]
        self.log_dict({f"train_{name}": loss for name, loss in losses.items()}, batch_size=len(batch.mask))
        return losses["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same noise and stretches every time, so that curves are smooth. `val_loss` is without the expert's, which joins."""
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        made, losses = self._losses(batch, generator)
        losses["sync"] = self._sync_loss(batch, made.motion, generator)
        self.sync_sums.append(len(batch.mask) * torch.stack((losses["sync"], torch.ones_like(losses["sync"]))))
        self.log_dict({f"val_{name}": loss for name, loss in losses.items()}, batch_size=len(batch.mask), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Lets the expert count if its loss was low enough; but not with a regressor, which has squared errors alone."""
        total, utterances = self.trainer.strategy.reduce(torch.stack(self.sync_sums).sum(0), reduce_op="sum").tolist()
        self.sync_sums.clear()
        if self.config.prior != "none" and total <= self.config.sync_threshold * utterances:
            self.synced.fill_(True)

    def configure_optimizers(self) -> Any:
        config = self.config
        adam = torch.optim.Adam(self.network.parameters(), config.learning_rate)
        return decaying(adam, config.learning_rate_decay, config.steps)

    def save(self, folder: Path, card: str) -> None:
        """Writes the network, and the sync expert beside it, as a checkpoint that `generate.load` reads."""
        write_checkpoint(folder, self.network, self.config, card, {SYNCNET: self.expert_folder})
