"""Rails at inference, which keep motion among what the person has been seen to do: each apart, and none of them trained.

T  frames     N  frames of the person's training motion     X  204 numbers of a frame: 68 points x 3, centimetres
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.landmarks import EYES, UPPER, VALUES
from models.presets import WrongConfig, check_types

# "period": the eyes shut every four seconds (++). "none": as the motion has them, which is hardly, as sound does not tell.
Blink = Literal["none", "period"]
PERIOD = 100  # frames from blink to blink
SHUT = (0.1, 0.5, 0.7, 1.0, 0.7, 0.5, 0.1)  # shares of the shut eyes, frame by frame, from a period's first on
CLOSED = 0.03  # share of the person's frames that count as shut eyes: those with the narrowest

BROWS_AND_EYES = (*range(17, 27), *range(36, 48))  # points whose clamp is narrower across and up, as the release has it
QUERIES = 1024  # frames reconstructed at once


@dataclass(frozen=True)
class Guards:
    """Which rails there are; models/postnet/config.py says what the numbers mean."""

    lle_share: float
    lle_neighbours: int
    clamp_std: float
    upper_share: float
    smoothing: float
    blink: Blink

    def __post_init__(self):
        check_types(self)
        for holds, rule in (
            (0 <= self.lle_share <= 1, "lle_share must be in [0, 1]"),
            (self.lle_neighbours > 0, "lle_neighbours must be above 0"),
            (self.clamp_std >= 0, "clamp_std must be at least 0"),
            (0 <= self.upper_share <= 1, "upper_share must be in [0, 1]"),
            (0 <= self.smoothing < 1, "smoothing must be in [0, 1)"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @property
    def know_the_person(self) -> bool:
        """Whether any of them needs the person's training motion."""
        return self.lle_share > 0 or self.clamp_std > 0 or self.upper_share < 1 or self.blink != "none"


def guarded(motion_TX: Tensor, guards: Guards, database_NX: Tensor, mean_X: Tensor, std_X: Tensor) -> Tensor:
    """All that `guards` names, in ++'s order: reconstruction, clamp, smoothing, with the upper face before that; and the blink,
    which none may flatten.

    database, mean, std: of the person's training motion.
    """
    if guards.lle_share:
        motion_TX = lle(motion_TX, database_NX, guards.lle_neighbours, guards.lle_share, slice(0, VALUES))
    if guards.clamp_std:
        motion_TX = clamp(motion_TX, mean_X, std_X, widths(guards.clamp_std).to(motion_TX))
    if guards.upper_share < 1:
        motion_TX = quieten(motion_TX, mean_X, guards.upper_share)
    if guards.smoothing:
        motion_TX = smooth(motion_TX, guards.smoothing)
    if guards.blink == "period":
        motion_TX = blink(motion_TX, closed_eyes(database_NX))
    return motion_TX


def lle(query_TX: Tensor, database_NX: Tensor, neighbours: int, share: float, columns: slice) -> Tensor:
    """Each frame moved by `share` of the way to its reconstruction from its nearest neighbours in the database.

    Locally linear embedding: weights of sum 1 whose mixture of the neighbours comes nearest to the frame, so the frame's
    projection onto the plane through them. By least squares of smallest weights: neighbours that are equal, which make the
    release's normal equations singular, are as good as one.

    columns: those of X that are looked at and moved (release: the points 0 to 48; ++: all).
    """
    moved_TX = query_TX.clone()
    known_NY = database_NX[:, columns].double()
    for first in range(0, len(query_TX), QUERIES):
        asked_TY = query_TX[first : first + QUERIES, columns].double()
        nearest_TK = torch.cdist(asked_TY, known_NY).topk(min(neighbours, len(known_NY)), largest=False).indices
        near_TKY = known_NY[nearest_TK]
        weights_TK = lle_weights(asked_TY, near_TKY)
        made_TY = (weights_TK[..., None] * near_TKY).sum(1)
        moved_TX[first : first + QUERIES, columns] = torch.lerp(asked_TY, made_TY, share).to(moved_TX.dtype)
    return moved_TX


def lle_weights(query_TY: Tensor, near_TKY: Tensor) -> Tensor:
    """(T, K) weights of sum 1 of each query's neighbours, expressed relative to the first of them."""
    relative_TYK = (near_TKY[:, 1:] - near_TKY[:, :1]).mT
    others_TK = (torch.linalg.pinv(relative_TYK) @ (query_TY - near_TKY[:, 0])[..., None])[..., 0]
    return torch.cat((1 - others_TK.sum(1, keepdim=True), others_TK), 1)


def widths(clamp_std: float) -> Tensor:
    """(X,) standard deviations that each number may be off its mean: half of `clamp_std` for brows and eyes, across and up."""
    widths_P3 = torch.full((VALUES // 3, 3), clamp_std)
    widths_P3[list(BROWS_AND_EYES), :2] /= 2
    return widths_P3.flatten()


def clamp(motion_TX: Tensor, mean_X: Tensor, std_X: Tensor, widths_X: Tensor) -> Tensor:
    """Every number at most its width, in standard deviations, off its mean."""
    return motion_TX.clamp(mean_X - widths_X * std_X, mean_X + widths_X * std_X)


def quieten(motion_TX: Tensor, mean_X: Tensor, share: float) -> Tensor:
    """Brows, nose and eyes, of which sound hardly tells, off their mean by that share of what they were."""
    quiet_TX = motion_TX.clone()
    quiet_TX[:, UPPER] = torch.lerp(mean_X[UPPER], motion_TX[:, UPPER], share)
    return quiet_TX


def smooth(motion_TX: Tensor, keep: float) -> Tensor:
    """Exponential moving average: of the frame before, smoothed, each keeps the share `keep`; the first is as it is."""
    smoothed = [motion_TX[0]]
    for frame_X in motion_TX[1:]:
        smoothed.append(torch.lerp(frame_X, smoothed[-1], keep))
    return torch.stack(smoothed)


def closed_eyes(database_NX: Tensor) -> Tensor:
    """The eyes, 36 numbers, as the person has them when they are narrowest."""
    opening_N = eye_opening(database_NX)
    narrowest_N = opening_N <= opening_N.quantile(CLOSED)
    return database_NX[narrowest_N, EYES].mean(0)


def eye_opening(motion_TX: Tensor) -> Tensor:
    """(T,) height of the upper lids over the lower ones, four points each, in centimetres off those of the canonical face."""
    y_TP = motion_TX[:, EYES].unflatten(1, (2, 6, 3))[..., 1]
    return (y_TP[:, :, 1] + y_TP[:, :, 2] - y_TP[:, :, 4] - y_TP[:, :, 5]).sum(1)


def blink(motion_TX: Tensor, closed_Y: Tensor) -> Tensor:
    """The eyes as they are, but every PERIOD frames mixed with closed ones, as SHUT says."""
    shares_T = torch.zeros(len(motion_TX)).to(motion_TX)
    for offset, share in enumerate(SHUT):
        shares_T[offset::PERIOD] = share
    blinking_TX = motion_TX.clone()
    blinking_TX[:, EYES] = torch.lerp(motion_TX[:, EYES], closed_Y, shares_T[:, None])
    return blinking_TX
