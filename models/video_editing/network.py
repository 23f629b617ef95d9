"""The U-Net of ADM (Dhariwal & Nichol, arXiv 2105.05233), with a second FiLM for the audio in every residual block.

    B  batch          H, W  pixels, image_size of both      C  channels of a residual block
    E  embedding, 4 x channels[0]: 256 in the paper         audio_BM: 4 rows of the column flattened; mel: M = 1024, in dB
    gamma_B: noise level in [0, 1], alphas_cumprod           images in [-1, 1]

Given the same weights it computes what the released network does.
"""

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from models.video_editing.config import Config

AUDIO_ROWS = 4  # a window of 100 ms, at 50 rows a second


class DoubleFiLM(nn.Module):
    """Equation 7 as released, h <- (1 + s_a) [(1 + s_t) GN(h) + b_t] + b_a, folded into one scale and one shift.

    The paper sets b_t inside the normalisation, which would cancel it; the code, and Diffused Heads, do not.
    """

    def __init__(self, embedding: int, channels: int):
        super().__init__()
        self.noise_level = nn.Linear(embedding, 2 * channels)
        self.audio = nn.Linear(embedding, 2 * channels)

    def forward(self, embeddings_B2E: Tensor) -> Tensor:
        """The embeddings of noise level and audio side by side -> scale and shift side by side, (B, 2C)."""
        level_BE, audio_BE = embeddings_B2E.chunk(2, dim=1)
        scale_t, shift_t = self.noise_level(level_BE).chunk(2, dim=1)
        scale_a, shift_a = self.audio(audio_BE).chunk(2, dim=1)
        return torch.cat([scale_t + scale_a + scale_t * scale_a, shift_t * (1 + scale_a) + shift_a], dim=1)


class VideoEditingUNet(nn.Module):
    """Predicts the noise in the masked part of a frame, or the clean frame: see Config.prediction."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        levels, embedding = len(config.channels), 4 * config.channels[0]
        attends = [level in config.attention_levels for level in range(levels)]
        self.unet = UNet2DModel(
            sample_size=config.image_size // config.patch,
            in_channels=9 * config.patch**2,
            out_channels=3 * config.patch**2,
            block_out_channels=config.channels,
            layers_per_block=config.res_blocks,
            down_block_types=tuple("AttnDownBlock2D" if attend else "ResnetDownsampleBlock2D" for attend in attends),
            up_block_types=tuple("AttnUpBlock2D" if attend else "ResnetUpsampleBlock2D" for attend in attends[::-1]),
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=config.head_channels,
            attn_norm_num_groups=32,
            time_embedding_dim=2 * embedding,
            class_embed_type="identity",
            dropout=config.dropout,
        )
        # UNet2DModel adds its two embeddings up. Padded on opposite sides, they reach every block side by side instead.
        self.unet.time_embedding = nn.Sequential(
            TimestepEmbedding(config.channels[0], embedding), nn.ConstantPad1d((0, embedding), 0.0)
        )
        self.unet.class_embedding = nn.ConstantPad1d((embedding, 0), 0.0)
        self.audio_embedding = TimestepEmbedding(AUDIO_ROWS * config.audio_width, embedding)  # Linear, SiLU, Linear
        for module in self.unet.modules():
            if isinstance(module, ResnetBlock2D):
                module.time_emb_proj = DoubleFiLM(embedding, module.out_channels)  # type: ignore[assignment]
        self._zero_outputs()

    def _zero_outputs(self) -> None:
        """Residual branches and the output start at zero, as in ADM. (The release loses these zeros by mistake.)"""
        outputs: list[nn.Module] = [self.unet.conv_out]
        for module in self.unet.modules():
            if isinstance(module, ResnetBlock2D):
                outputs.append(module.conv2)
            elif isinstance(module, Attention):
                outputs.append(module.to_out[0])
        for parameter in (parameter for module in outputs for parameter in module.parameters()):
            nn.init.zeros_(parameter)

    def forward(
        self, noisy_B3HW: Tensor, previous_B3HW: Tensor, identity_B3HW: Tensor, audio_BM: Tensor, gamma_B: Tensor
    ) -> Tensor:
        """Noise, or clean frame, (B, 3, H, W).

        noisy: the frame, with noise in the mask and real pixels outside; previous: the one before; identity: frame 0.
        """
        images = F.pixel_unshuffle(torch.cat([noisy_B3HW, previous_B3HW, identity_B3HW], dim=1), self.config.patch)
        # Run anew for each step though it does not depend on it: under one part in a hundred of the time, in any preset.
        audio_BE = self.audio_embedding((audio_BM - self.config.audio_mean) / self.config.audio_std)
        output = self.unet(images, gamma_B * self.config.noise_level_scale, audio_BE).sample
        output_B3HW = F.pixel_shuffle(output, self.config.patch)
        return identity_B3HW + output_B3HW if self.config.from_identity else output_B3HW
