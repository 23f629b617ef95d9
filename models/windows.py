"""Windows of rows to one code, and codes of neighbouring windows to one: AD-NeRF's AudioNet and AudioAttNet (arXiv 2103.11078).

DiffTalk hears with them; GeneFace reads landmarks with them.

B  batch     R  rows of a window     D  numbers in a row     F  neighbouring windows     E  64 numbers of a code
"""

from itertools import pairwise

from torch import Tensor, nn

CODE = 64
SLOPE = 0.02
STRIDES = {1: (1, 1, 1, 1), 2: (2, 1, 1, 1), 4: (2, 2, 1, 1), 8: (2, 2, 2, 1), 16: (2, 2, 2, 2)}  # of the convolutions, by R


class WindowEncoder(nn.Module):
    """One window to its code. rows: R, a key of STRIDES; width: D."""

    def __init__(self, width: int, rows: int):
        super().__init__()
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise((width, 32, 32, 64, 64)), STRIDES[rows], strict=True):
            layers += [nn.Conv1d(before, after, 3, stride, 1), nn.LeakyReLU(SLOPE)]
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(SLOPE), nn.Linear(64, CODE))

    def forward(self, window_BRD: Tensor) -> Tensor:
        """(B, R, D) -> (B, E)."""
        return self.linear(self.convolutions(window_BRD.movedim(1, 2)).squeeze(-1))


class WindowAttention(nn.Module):
    """The codes of F windows to one, weighted. channels: of a code, its first ones, which say how much it counts."""

    def __init__(self, windows: int, channels: int):
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, 16, 8, 4, 2, 1)):
            layers += [nn.Conv1d(before, after, 3, 1, 1), nn.LeakyReLU(SLOPE)]
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Linear(windows, windows)

    def forward(self, codes_BFE: Tensor) -> Tensor:
        """(B, F, E) -> (B, E)."""
        weights_BF = self.linear(self.convolutions(codes_BFE[..., : self.channels].movedim(1, 2)).squeeze(1)).softmax(-1)
        return (weights_BF[..., None] * codes_BFE).sum(1)
