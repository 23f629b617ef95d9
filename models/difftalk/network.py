"""The denoiser, through diffusers' UNet2DConditionModel, and the encoders of its conditions.

B  batch     C, h, w  latents     W  8 windows of 16 rows, about a frame     D  numbers of a row of audio
K  widths of all levels' attention, one after another
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from models.difftalk.config import Config
from models.windows import CODE, SLOPE, WindowAttention, WindowEncoder

FRAMES, ROWS = 8, 16  # windows that a frame hears, and rows in a window: 16 x 20 ms (release)
HEARD = 2 * (FRAMES - 1) + ROWS  # rows from the first window's first to the last one's last: two rows a frame
LANDMARKS = (*range(4), *range(13, 48))  # of the 68: upper jaw, brows, nose, eyes (release)
SMOOTHED = 32  # channels of an audio code that say how much it counts (release: half of them)


class LandmarkEncoder(nn.Sequential):
    """Coordinates of the 39 landmarks (B, 78) to a code (B, 64)."""

    def __init__(self) -> None:
        width = 2 * len(LANDMARKS)
        super().__init__(nn.Linear(width, 128), nn.LeakyReLU(SLOPE), nn.Linear(128, 64), nn.LeakyReLU(SLOPE), nn.Linear(64, CODE))


class OneToken:
    """Attention to a single token. The softmax of one key is 1, whatever the query: the output is that token's value, everywhere.

    diffusers hands it what stands for the token: the biases of all blocks, of which it takes its own.
    """

    def __init__(self, start: int, stop: int):
        self.start, self.stop = start, stop

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return encoder_hidden_states[..., self.start : self.stop]


class DiffTalkUNet(nn.Module):
    """Predicts the noise in latents, or the clean latents: see Config.prediction.

    The conditions reach it through cross-attention to one token, so they add a bias to each channel (`biases`), the same at
    every step. Weights of queries, keys and the norm before them are kept, as released, and never used.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        attends = [level in config.attention_levels for level in range(len(config.channels))]
        self.unet = UNet2DConditionModel(
            sample_size=config.latent_size // config.patch,
            in_channels=3 * config.latent_channels * config.patch**2,
            out_channels=config.latent_channels * config.patch**2,
            block_out_channels=config.channels,
            layers_per_block=config.res_blocks,
            down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in attends[::-1]),
            cross_attention_dim=2 * CODE,
            attention_head_dim=tuple(channels // config.head_channels for channels in config.channels),  # diffusers: heads
            norm_eps=1e-5,
        )
        self.audio_encoder = WindowEncoder(config.audio_width, ROWS)
        self.audio_attention = WindowAttention(FRAMES, SMOOTHED)
        self.landmark_encoder = LandmarkEncoder()
        start = 0
        for block in self.blocks():
            stop = start + block.attn2.out_dim
            block.attn2.set_processor(OneToken(start, stop))
            for unused in (block.norm2, block.attn2.to_q, block.attn2.to_k):
                unused.requires_grad_(False)
            start = stop

    def blocks(self) -> list[Any]:
        """The transformer blocks, each with cross-attention `attn2`, in a fixed order."""
        return [module for module in self.unet.modules() if isinstance(module, BasicTransformerBlock)]

    def condition(self, audio_BSD: Tensor, landmarks_BP2: Tensor) -> Tensor:
        """The token (B, 128): audio, then landmarks.

        audio: (B, 30, D) rows, two a frame, from 14 before a frame's first to 15 after it. landmarks: (B, 39, 2) pixels.
        """
        rows_BSD = (audio_BSD - self.config.audio_mean) / self.config.audio_std
        windows_BFRD = rows_BSD.unfold(1, ROWS, 2).movedim(-1, -2)
        codes_BFE = self.audio_encoder(windows_BFRD.flatten(0, 1)).unflatten(0, (-1, FRAMES))
        points_BX = ((landmarks_BP2 - self.config.landmark_mean) / self.config.landmark_std).flatten(1)
        return torch.cat([self.audio_attention(codes_BFE), self.landmark_encoder(points_BX)], dim=1)

    def biases(self, condition_BE: Tensor) -> Tensor:
        """What the token (B, 128) adds to the channels of each block (B, 1, K)."""
        attentions = (block.attn2 for block in self.blocks())
        return torch.cat([attention.to_out[0](attention.to_v(condition_BE)) for attention in attentions], dim=-1)[:, None]

    def forward(
        self, noisy_BChw: Tensor, masked_BChw: Tensor, reference_BChw: Tensor, step_B: Tensor, biases_B1K: Tensor
    ) -> Tensor:
        """Noise, or clean latents, (B, C, h, w).

        noisy: the frame's latents with noise; masked: of the frame with what is painted black; reference: of another frame;
        step: of the noise schedule, 0 the least noise.
        """
        latents = F.pixel_unshuffle(torch.cat([noisy_BChw, masked_BChw, reference_BChw], dim=1), self.config.patch)
        return F.pixel_shuffle(self.unet(latents, step_B, biases_B1K).sample, self.config.patch)
