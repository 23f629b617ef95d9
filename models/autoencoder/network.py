"""The autoencoder, through diffusers' VQModel, and the patch discriminator it may be trained against.

B  batch     H, W  pixels     C  latent channels     h, w  latent pixels: H, W over the factor of the configuration
"""

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn

from models.autoencoder.config import Config


class Autoencoder(nn.Module):
    """Images to latents and back. Encoding does not quantise, decoding does so first: as in LDM's VQModelInterface."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        levels = len(config.channels)
        self.vq = VQModel(
            in_channels=3 * config.patch**2,
            out_channels=3 * config.patch**2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.channels,
            layers_per_block=config.res_blocks,
            latent_channels=config.latent_channels,
            num_vq_embeddings=config.codes,
            vq_embed_dim=config.latent_channels,
            scaling_factor=1.0,
        )

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """Images in [-1, 1] -> latents (B, C, h, w) before quantisation."""
        return self.vq.encode(F.pixel_unshuffle(images_B3HW, self.config.patch)).latents

    def quantise(self, latents_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Each latent's nearest code (gradients pass straight through), and the distance between the two, a scalar."""
        codes_BChw, distance, _ = self.vq.quantize(latents_BChw)
        return codes_BChw, distance

    def render(self, codes_BChw: Tensor) -> Tensor:
        """Quantised latents -> images, about [-1, 1]."""
        decoded = self.vq.decoder(self.vq.post_quant_conv(codes_BChw))
        return F.pixel_shuffle(decoded, self.config.patch)

    def decode(self, latents_BChw: Tensor) -> Tensor:
        """Latents -> images, about [-1, 1]."""
        return self.render(self.quantise(latents_BChw)[0])

    @torch.no_grad()
    def draw_codes(self, latents_BChw: Tensor) -> None:
        """Takes the codebook from latents, one code from each of as many latent pixels, chosen evenly."""
        pixels_NC = latents_BChw.movedim(1, -1).flatten(0, -2)
        chosen = torch.linspace(0, len(pixels_NC) - 1, self.config.codes, device=pixels_NC.device).long()
        codebook = self.vq.quantize.embedding.weight
        # Codes drawn from one latent pixel would stay twins for ever.
        spread = 1e-3 * pixels_NC.std() * torch.randn(codebook.shape, device=codebook.device)
        codebook.copy_(pixels_NC[chosen] + spread)

    @torch.no_grad()
    def standardise(self, mean_C: Tensor, scale: float) -> None:
        """Moves and scales the latents, to (latents - mean) / scale, and the codebook with them: the images stay as they are.

        One scale for all channels, so that the nearest code stays the nearest.
        """
        quant, post = self.vq.quant_conv, self.vq.post_quant_conv
        quant.weight /= scale
        quant.bias.copy_((quant.bias - mean_C) / scale)
        self.vq.quantize.embedding.weight.sub_(mean_C).div_(scale)
        post.bias += post.weight.flatten(1) @ mean_C
        post.weight *= scale


class PatchDiscriminator(nn.Sequential):
    """Real or decoded, for each patch of 70² pixels: pix2pix's (arXiv 1611.07004, §6.1.2), (B, 3, H, W) -> (B, 1, …) logits."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
        for width, stride in ((64, 2), (128, 2), (256, 1)):
            layers += [nn.Conv2d(width, 2 * width, 4, stride, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(512, 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
