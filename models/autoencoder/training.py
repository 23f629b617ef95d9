"""The objective (VQGAN, arXiv 2012.09841, eq. 4 to 7, with L1 for L2 as in LDM), and its optimisation with Lightning."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, distributed, nn
from torch.func import functional_call

from models.autoencoder.config import Config
from models.autoencoder.network import Autoencoder, PatchDiscriminator
from models.checkpoint import write_checkpoint
from models.given import Given
from models.images import to_unit
from models.learning_rate import decaying
from models.perceptual import Perceptual

MOST_ADVERSARIAL = 1e4  # bound of the ratio of gradients (LDM)
FORGETTING = 0.99  # of the running moments of the latents, each step


def build(config: Config, given: Given) -> "Reconstruction":
    """What `models.trainer` trains. Raises NoBackbone."""
    return Reconstruction(config, Perceptual.load(Path(config.backbone)) if config.perceptual_weight else None)


class Reconstruction(LightningModule):
    """Trains `network`, and `discriminator` against it.

    Both have one optimiser: each loss reaches the weights of its own network alone, so that is as good as two.
    """

    strategy = "ddp_find_unused_parameters_true"  # on several GPUs: the codebook and the discriminator may begin late

    def __init__(self, config: Config, perceptual: Perceptual | None):
        super().__init__()
        self.config = config
        self.network = Autoencoder(config)
        self.discriminator = PatchDiscriminator() if config.discriminator_weight else None
        self.perceptual = perceptual
        self.latent_mean_C: Tensor
        self.latent_square: Tensor
        self.register_buffer("latent_mean_C", torch.zeros(config.latent_channels))
        self.register_buffer("latent_square", torch.ones(()))  # mean square about that mean

    def _coded(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Latents' codes, or before `codebook_start` the latents themselves; and the codebook's loss."""
        latents_BChw = self.network.encode(images_B3HW)
        if self.training:
            self._watch(latents_BChw.detach().float())
        begins = self.global_step == self.config.codebook_start > 0  # validation before that step has no codes yet
        if self.global_step < self.config.codebook_start or (begins and not self.training):
            return latents_BChw, latents_BChw.new_zeros(())
        if begins:
            self.network.draw_codes(latents_BChw.detach().float())
            if distributed.is_initialized():  # each rank has drawn from images of its own
                distributed.broadcast(self.network.vq.quantize.embedding.weight.data, src=0)
        return self.network.quantise(latents_BChw)

    def _watch(self, latents_BChw: Tensor) -> None:
        """Running moments of the latents."""
        mean_C = latents_BChw.mean((0, 2, 3))
        square = (latents_BChw - mean_C[:, None, None]).square().mean()
        share = 1.0 if self.global_step == 0 else 1 - FORGETTING
        self.latent_mean_C.lerp_(mean_C, share)
        self.latent_square.lerp_(square, share)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        images_B3HW = to_unit(batch)
        codes_BChw, codebook_loss = self._coded(images_B3HW)
        decoded_B3HW = self.network.render(codes_BChw)
        reconstruction = (images_B3HW - decoded_B3HW).abs().mean()
        self.log("l1", reconstruction)
        if self.perceptual is not None:
            reconstruction = reconstruction + self.config.perceptual_weight * self.perceptual(images_B3HW, decoded_B3HW).mean()
        loss = reconstruction + self.config.codebook_weight * codebook_loss
        if self.discriminator is not None and self.global_step >= self.config.discriminator_start:
            loss = loss + self._adversarial(self.discriminator, images_B3HW, decoded_B3HW, reconstruction)
        self.log("train_loss", loss)
        return loss

    def _adversarial(self, discriminator: nn.Module, real_B3HW: Tensor, decoded_B3HW: Tensor, reconstruction: Tensor) -> Tensor:
        """What the decoder loses by being told from real, and the discriminator's hinge loss."""
        frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
        recognised = -functional_call(discriminator, frozen, decoded_B3HW).mean()
        # Weighted so that both losses pull alike at the decoder's last weights (VQGAN, eq. 7).
        last = self.network.vq.decoder.conv_out.weight
        pulls = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, recognised)]
        weight = (pulls[0] / (pulls[1] + 1e-4)).clamp(0, MOST_ADVERSARIAL).detach()
        hinge = (1 - discriminator(real_B3HW)).relu().mean() + (1 + discriminator(decoded_B3HW.detach())).relu().mean()
        self.log("discriminator_loss", hinge / 2)
        return self.config.discriminator_weight * weight * recognised + hinge / 2

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """The mean absolute error of decoded images."""
        images_B3HW = to_unit(batch)
        decoded_B3HW = self.network.render(self._coded(images_B3HW)[0])
        error = (images_B3HW - decoded_B3HW.clamp(-1, 1)).abs().mean()
        self.log("val_loss", error, batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config = self.config
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(trained, config.learning_rate, betas=(0.5, 0.9))
        return decaying(adam, config.learning_rate_decay, config.steps)

    def save(self, folder: Path, card: str) -> None:
        """Writes the network as a checkpoint that `load` reads, its latents about 0 and of mean square 1."""
        network = Autoencoder(self.config)
        network.load_state_dict(self.network.state_dict())
        network.standardise(self.latent_mean_C.cpu(), float(self.latent_square.sqrt()))
        write_checkpoint(folder, network, self.config, card)
