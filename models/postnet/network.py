"""PostNet, and the discriminator that it is trained against.

B  batch     T  frames, 25 a second     X  204 numbers of a frame: 68 points x 3, centimetres     C  channels
N  frames of the person's training motion
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.landmarks import VALUES
from models.postnet.config import Config

SLOPE = 0.2


class Block(nn.Module):
    """A convolution over time, normalised; `residual`: added to what it is given."""

    def __init__(self, before: int, after: int, residual: bool, masked: bool):
        super().__init__()
        self.residual, self.masked = residual, masked
        self.convolution = nn.Conv1d(before, after, 3, padding=1)
        self.norm = nn.BatchNorm1d(after)

    def forward(self, x_BCT: Tensor, mask_BT: Tensor) -> Tensor:
        y_BCT = self.convolution(x_BCT)
        if self.masked:
            real_BTC = torch.zeros_like(y_BCT.mT)
            real_BTC[mask_BT] = self.norm(y_BCT.mT[mask_BT]).to(real_BTC.dtype)
            y_BCT = real_BTC.mT
        else:
            y_BCT = self.norm(y_BCT)
        return F.leaky_relu(y_BCT + x_BCT if self.residual else y_BCT, SLOPE)


class PostNet(nn.Module):
    """Motion of anybody to motion of the person, by what is added to it; and what is remembered of how the person moves."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        narrow, wide = config.channels
        masked = config.padding == "masked"

        def blocks(before: int, after: int) -> nn.ModuleList:
            return nn.ModuleList([Block(before, after, False, masked)] + [Block(after, after, True, masked) for _ in range(2)])

        self.block1 = blocks(VALUES, narrow)
        self.block2 = blocks(narrow, wide)
        self.block3 = Block(wide, narrow, False, masked)
        self.last = nn.Conv1d(narrow, VALUES, 1)
        if config.zero_start:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # it has one
        self.motion_NX: Tensor
        self.mean_X: Tensor
        self.std_X: Tensor
        self.register_buffer("motion_NX", torch.zeros(config.frames, VALUES))
        self.register_buffer("mean_X", torch.zeros(VALUES))
        self.register_buffer("std_X", torch.ones(VALUES))

    def forward(self, motion_BTX: Tensor, mask_BT: Tensor) -> Tensor:
        """mask: True where a clip has frames; the others are returned as they are."""
        mask_B1T = mask_BT[:, None]
        x_BCT = motion_BTX.mT * mask_B1T
        for blocks in (self.block1, self.block2, [self.block3]):
            for block in blocks:
                x_BCT = block(x_BCT, mask_BT)
            x_BCT = x_BCT * mask_B1T
        return motion_BTX + (self.last(x_BCT) * mask_B1T).mT

    @torch.no_grad()
    def remember(self, motion_NX: Tensor) -> None:
        """Takes the person's training motion, of as many frames as the configuration says, with its mean and deviation."""
        self.motion_NX.copy_(motion_NX)
        self.mean_X.copy_(motion_NX.mean(0))
        self.std_X.copy_(motion_NX.std(0, correction=0))


class FrameDiscriminator(nn.Sequential):
    """The person's frame or not, each by itself: (N, X) -> (N, 1), trained towards 1 and 0 (LSGAN, arXiv 1611.04076)."""

    def __init__(self, config: Config):
        layers: list[nn.Module] = []
        for before, after in pairwise((VALUES, *config.discriminator_channels)):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.25 if layers else SLOPE), nn.Dropout(0.25)]
        super().__init__(*layers, nn.Linear(config.discriminator_channels[-1], 1, bias=False))
