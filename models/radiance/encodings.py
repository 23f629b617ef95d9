"""Coordinates and directions as networks read them (NeRF, arXiv 2003.08934; Instant-NGP, arXiv 2201.05989; GeneFace's release).

N  points     D  coordinates of a point     L  levels of a grid     C  features of a level     V  corners of a cell: 2^D
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from math import ceil
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PRIMES = (1, 2_654_435_761, 805_459_861)  # of Instant-NGP's hash
REST = 1e-4  # a new grid's features are drawn between -REST and REST


def frequencies(x_ND: Tensor, octaves: int) -> Tensor:
    """(N, D) -> (N, D (1 + 2 octaves)): the coordinates; then for octave k = 0, 1, … sin 2^k x of each, cos 2^k x of each.

    Without NeRF's factor π. 63 numbers of a position in 10 octaves, 27 of a direction in 4.
    """
    scaled_NKD = x_ND[:, None] * 2.0 ** torch.arange(octaves, device=x_ND.device, dtype=x_ND.dtype)[:, None]
    waves_NKWD = torch.stack((scaled_NKD.sin(), scaled_NKD.cos()), 2)
    return torch.cat((x_ND, waves_NKWD.flatten(1)), 1)


def harmonics(directions_N3: Tensor) -> Tensor:
    """Unit directions -> (N, 16): the real spherical harmonics of bands 0 to 3, each from order -l to l.

    Orthonormal, with the Condon-Shortley phase (-1)^m: the release's.
    """
    x, y, z = directions_N3.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        (
            torch.full_like(x, 0.28209479177387814),  # sqrt(1 / 4π)
            *(-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x),  # sqrt(3 / 4π)
            *(1.0925484305920792 * x * y, -1.0925484305920792 * y * z),  # sqrt(15 / 4π)
            0.31539156525252005 * (3 * zz - 1),  # sqrt(5 / 16π)
            *(-1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy)),
            -0.5900435899266435 * y * (3 * xx - yy),  # sqrt(35 / 32π)
            2.890611442640554 * x * y * z,  # sqrt(105 / 4π)
            -0.4570457994644657 * y * (5 * zz - 1),  # sqrt(21 / 32π)
            0.3731763325901154 * z * (5 * zz - 3),  # sqrt(7 / 16π)
            -0.4570457994644657 * x * (5 * zz - 1),
            1.445305721320277 * z * (xx - yy),  # sqrt(105 / 16π)
            -0.5900435899266435 * x * (xx - 3 * yy),
        ),
        -1,
    )


class Grid(nn.Module):
    """Features over the unit square or cube: a grid of points at each level, between which they are blended linearly.

    Level l has R = ceil(s) + 1 points a side for s = base (finest / base)^(l / (levels - 1)) - 1, and a table of (R + 1)^D
    rows. No table has more than 2^log2_rows: points of a finer level share rows. Which do, `kind` says: "hashed" spreads them
    (Instant-NGP); "tiled", the release's, repeats the table, and leaves a coordinate whose step is longer than a table out of
    the row's number. In three dimensions that's the third one of all levels from R = 295 on: they tell no left from right.
    """

    def __init__(
        self,
        dimensions: int,
        levels: int = 16,
        features: int = 2,
        base: int = 16,
        finest: int = 2048,
        log2_rows: int = 16,
        kind: Literal["tiled", "hashed"] = "tiled",
    ):
        super().__init__()
        self.width = levels * features  # numbers it gives a point
        growth = (finest / base) ** (1 / max(levels - 1, 1))
        scales = [base * growth**level - 1 for level in range(levels)]
        self.resolutions = [ceil(round(scale, 6)) + 1 for scale in scales]
        points = [(resolution + 1) ** dimensions for resolution in self.resolutions]
        self.rows = [min(1 << log2_rows, ceil(count / 8) * 8) for count in points]  # of each level's table
        self.dense = sum(count <= 1 << log2_rows for count in points)  # levels whose points have a row each; the coarsest
        self.kind = kind
        self.embeddings = nn.Parameter(torch.empty(sum(self.rows), features).uniform_(-REST, REST))

        strides_DL = torch.tensor([[(side + 1) ** axis for side in self.resolutions] for axis in range(dimensions)])
        strides_DL[strides_DL > 1 << log2_rows] = 0
        masks_L = torch.full((levels,), -1)
        masks_L[self.dense :] = (1 << log2_rows) - 1
        if kind == "hashed":
            # The rows' number is a power of two: only the low bits of a product count.
            strides_DL[:, self.dense :] = torch.tensor(PRIMES[:dimensions])[:, None] % (1 << log2_rows)
        offsets_L = torch.tensor([0, *self.rows]).cumsum(0)[:-1]
        self.scales_L1: Tensor
        self.strides_DL1: Tensor
        self.masks_L11: Tensor
        self.offsets_L11: Tensor
        self.register_buffer("scales_L1", torch.tensor(scales)[:, None], persistent=False)
        self.register_buffer("strides_DL1", strides_DL.int()[..., None], persistent=False)
        self.register_buffer("masks_L11", masks_L.int()[:, None, None], persistent=False)
        self.register_buffer("offsets_L11", offsets_L.int()[:, None, None], persistent=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) in [0, 1] -> (N, L C), the coarsest level first; zeros for a point outside. Differentiable, once, in both."""
        features_NE = _Blended.apply(x_ND.clamp(0, 1), self.embeddings, self)
        inside_N1 = ((x_ND >= 0) & (x_ND <= 1)).all(-1, keepdim=True)
        return torch.where(inside_N1, features_NE, 0.0)

    def corners(self, x_ND: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The rows (L, N, V), int32, of the corners about each point at each level, and how far it is from the lower ones to the
        upper: of each axis (L, N), in [0, 1)."""
        terms, fractions = [], []
        for x_N, strides_L1 in zip(x_ND.unbind(1), self.strides_DL1, strict=True):
            position_LN = x_N * self.scales_L1.to(x_N.dtype) + 0.5
            lower_LN = position_LN.int()
            fractions.append(position_LN - lower_LN)
            term_LN = lower_LN * strides_L1
            terms.append((term_LN, term_LN + strides_L1))
        if self.kind == "hashed":
            coarse = _outer(torch.add, [(one[: self.dense], other[: self.dense]) for one, other in terms])
            fine = _outer(torch.bitwise_xor, [(one[self.dense :], other[self.dense :]) for one, other in terms])
            rows_LNV = torch.cat((coarse, fine))
        else:
            rows_LNV = _outer(torch.add, terms)
        return rows_LNV.bitwise_and_(self.masks_L11).add_(self.offsets_L11), fractions


class _Blended(torch.autograd.Function):
    """A grid's features, from the corners of each point's cells. By hand, as autograd keeps and sorts too much."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, embeddings: Tensor, grid: Grid) -> Tensor:
        rows_LNV, fractions = grid.corners(x_ND)
        shares_LNV = _outer(torch.mul, [(1 - fraction_LN, fraction_LN) for fraction_LN in fractions])
        ctx.grid = grid
        ctx.save_for_backward(embeddings, rows_LNV, *fractions)
        return _mix(embeddings, rows_LNV, shares_LNV).transpose(0, 1).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NE: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        embeddings, rows_LNV, *fractions = ctx.saved_tensors
        levels, points, _ = rows_LNV.shape
        pairs = [(1 - fraction_LN, fraction_LN) for fraction_LN in fractions]
        gradient_CLN = gradient_NE.view(points, levels, -1).permute(2, 1, 0).contiguous()
        of_x = of_embeddings = None
        if ctx.needs_input_grad[0]:
            of_x = torch.empty(points, len(fractions), dtype=gradient_NE.dtype, device=gradient_NE.device)
            for axis, fraction_LN in enumerate(fractions):
                one_LN = torch.ones_like(fraction_LN)
                slopes_LNV = _outer(torch.mul, [*pairs[:axis], (-one_LN, one_LN), *pairs[axis + 1 :]])
                slope_LNC = _mix(embeddings, rows_LNV, slopes_LNV)
                of_x[:, axis] = ((slope_LNC.movedim(2, 0) * gradient_CLN).sum(0) * ctx.grid.scales_L1).sum(0)
        if ctx.needs_input_grad[1]:
            shares_LNV, rows = _outer(torch.mul, pairs), rows_LNV.flatten()
            of_embeddings = torch.stack(
                [
                    torch.zeros_like(embeddings[:, 0]).index_add_(0, rows, (gradient_LN[..., None] * shares_LNV).flatten())
                    for gradient_LN in gradient_CLN
                ],
                1,
            )
        return of_x, of_embeddings, None


def _mix(embeddings: Tensor, rows_LNV: Tensor, shares_LNV: Tensor) -> Tensor:
    """(L, N, C): the rows' features, each times its share, summed."""
    mixed = F.embedding_bag(rows_LNV.flatten(0, 1), embeddings, per_sample_weights=shares_LNV.flatten(0, 1), mode="sum")
    return mixed.view(*rows_LNV.shape[:2], embeddings.shape[1])


def _outer(operation: Callable[..., Tensor], pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """D pairs of (L, N) -> (L, N, V): the operation on each choice of one of every pair, the last pair's running fastest."""
    *others, last = pairs
    partial = reduce(lambda found, pair: [operation(one, other) for one in found for other in pair], others[1:], list(others[0]))
    result_LNV = last[0].new_empty(*last[0].shape, 2 * len(partial))
    for index, (one, other) in enumerate(product(partial, last)):
        operation(one, other, out=result_LNV[..., index])
    return result_LNV


def to_unit(x_ND: Tensor) -> Tensor:
    """A field's coordinates in [-1, 1] -> [0, 1], as `Grid` takes them."""
    return (x_ND + 1) / 2
