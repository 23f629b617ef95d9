"""The objective (release), and its optimisation with Lightning."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from models.checkpoint import write_checkpoint
from models.given import Given
from models.syncnet.config import Config
from models.syncnet.examples import Pair
from models.syncnet.network import SyncNet, cross_entropy


def build(config: Config, given: Given) -> "SyncExpert":
    """What `models.trainer` trains."""
    return SyncExpert(config)


def noisy(pairs: Pair, config: Config) -> Pair:
    """What training sees of them: see Config's audio_noise and mouth_offset."""
    speech_BRD, mouth_BFM = pairs.speech, pairs.mouth
    speech_BRD = speech_BRD + config.audio_noise * config.audio_std * torch.randn_like(speech_BRD)
    offset_B1M = config.mouth_offset * torch.randn_like(mouth_BFM[:, :1])
    return pairs._replace(speech=speech_BRD, mouth=mouth_BFM + offset_B1M)


class SyncExpert(LightningModule):
    """Trains `network`."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.network = SyncNet(config)

    def _judged(self, pairs: Pair) -> tuple[Tensor, Tensor]:
        """Loss, and share of the pairs that are told right."""
        cosine_B = self.network(pairs.speech, pairs.mouth)
        return cross_entropy(cosine_B, pairs.synced), ((cosine_B > 0.5) == pairs.synced).float().mean()

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        loss, accuracy = self._judged(noisy(batch, self.config))
        self.log_dict({"train_loss": loss, "train_accuracy": accuracy}, batch_size=len(batch.synced))
        return loss

    def validation_step(self, batch: Pair, batch_idx: int) -> None:
        loss, accuracy = self._judged(batch)
        self.log_dict({"val_loss": loss, "val_accuracy": accuracy}, batch_size=len(batch.synced), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config = self.config
        adam = torch.optim.Adam(self.network.parameters(), config.learning_rate)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.steps)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def save(self, folder: Path, card: str) -> None:
        """Writes the network as a checkpoint that `expert.load` reads."""
        write_checkpoint(folder, self.network, self.config, card)
