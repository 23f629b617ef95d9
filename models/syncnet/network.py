"""The expert's two encoders (release), and what they lose by.

B  batch     F  5 frames of a mouth, 25 a second     M  60 numbers of a mouth: 20 points x 3     E  width of the embeddings
R  10 rows of audio of the same time, 50 a second     D  numbers in a row
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.landmarks import MOUTH
from models.syncnet.config import Config

FRAMES, ROWS = 5, 10  # F and R
MOUTH_VALUES = MOUTH.stop - MOUTH.start  # M
LEAST = 1e-7  # probability that a loss still tells from 0


class Block(nn.Module):
    """Convolution over time and norm, and the input again if `residual`."""

    def __init__(self, before: int, after: int, kernel: int = 3, stride: int = 1, padding: int = 1, residual: bool = False):
        super().__init__()
        self.convolution = nn.Conv1d(before, after, kernel, stride, padding)
        self.norm = nn.BatchNorm1d(after)
        self.residual = residual

    def forward(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', T')."""
        normed_BCT = self.norm(self.convolution(x_BCT))
        return (normed_BCT + x_BCT if self.residual else normed_BCT).relu()


def encoder(config: Config, values: int, first: int, strides: tuple[int, int]) -> nn.Sequential:
    """values: numbers of a row or frame. first: channels of the first block. strides: to the second and third level."""
    low, middle, high = config.channels

    def residuals(width: int) -> list[Block]:
        return [Block(width, width, residual=True) for _ in range(config.res_blocks)]

    return nn.Sequential(
        *(Block(values, first), Block(first, low), *residuals(low)),
        *(Block(low, middle, stride=strides[0]), *residuals(middle)),
        *(Block(middle, high, stride=strides[1]), *residuals(high)),
        *(Block(high, high), Block(high, high, padding=0), Block(high, high, kernel=1, padding=0)),
    )


class SyncNet(nn.Module):
    """Embeddings of mouths and of sounds, with a cosine near 1 for those that belong together, and near 0 for others.

    Norm 1, and, coming out of a ReLU, no entry below 0: so a cosine is between 0 and 1, and taken for a probability.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.hearing = encoder(config, config.audio_width, config.channels[0], (2, 2))
        self.seeing = encoder(config, MOUTH_VALUES, config.mouth_channels, (2, 1))

    def hear(self, speech_BRD: Tensor) -> Tensor:
        """(B, 10, D) rows of the column -> (B, E)."""
        rows_BRD = (speech_BRD - self.config.audio_mean) / self.config.audio_std
        return embedding(self.hearing, rows_BRD)

    def see(self, mouth_BFM: Tensor) -> Tensor:
        """(B, 5, 60) centimetres from the canonical face -> (B, E)."""
        return embedding(self.seeing, mouth_BFM)

    def forward(self, speech_BRD: Tensor, mouth_BFM: Tensor) -> Tensor:
        """The cosines, (B,)."""
        return (self.hear(speech_BRD) * self.see(mouth_BFM)).sum(-1)


def embedding(encoder: nn.Module, x_BTC: Tensor) -> Tensor:
    """(B, T, C) -> (B, E)."""
    return F.normalize(encoder(x_BTC.movedim(1, 2)).squeeze(-1).float(), dim=-1)


def cross_entropy(cosine_B: Tensor, synced_B: Tensor) -> Tensor:
    """Of cosines as probabilities that mouth and sound belong together. synced: whether they do."""
    # Where a cosine of such embeddings is 0, the ReLUs let no gradient through: the bound takes none away.
    return -torch.where(synced_B, cosine_B, 1 - cosine_B).clamp(LEAST, 1).log().mean()
