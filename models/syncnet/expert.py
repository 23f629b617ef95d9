"""A trained expert at work: what motion that does not fit its sound loses, and how well an utterance's does.

B  batch     T  frames     S = 2T rows of audio     D  numbers in a row     X  204 numbers of motion     N = T - 4 stretches
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import read_config, read_weights
from models.landmarks import MOUTH
from models.syncnet.config import Config
from models.syncnet.network import FRAMES, ROWS, SyncNet, cross_entropy


def load(folder: Path) -> SyncNet:
    """The network of a checkpoint folder; gradients pass through it, and none stays in its weights. Raises BadCheckpoint."""
    network = SyncNet(read_config(folder, Config))
    read_weights(folder, network)
    return network.eval().requires_grad_(False)


def stretches(speech_BSD: Tensor, motion_BTX: Tensor) -> tuple[Tensor, Tensor]:
    """Every 5 frames in a row, views: their sound (B, N, 10, D) and their mouths (B, N, 5, 60). ValueError if there are none."""
    rows, frames = speech_BSD.shape[1], motion_BTX.shape[1]
    if rows != 2 * frames:
        raise ValueError(f"{rows} rows of sound are not two for each of {frames} frames")
    if frames < FRAMES:
        raise ValueError(f"the sync expert sees {FRAMES} frames at once, and there are {frames}")
    mouth_BTM = motion_BTX[..., MOUTH]
    return speech_BSD.unfold(1, ROWS, 2).movedim(-1, -2), mouth_BTM.unfold(1, FRAMES, 1).movedim(-1, -2)


def sync_loss(
    network: SyncNet, speech_BSD: Tensor, motion_BTX: Tensor, mask_BT: Tensor, clips: int, generator: torch.Generator | None
) -> Tensor:
    """How little at least `clips` random stretches of 5 frames seem to belong to their sound (release): cross entropy, a scalar.

    mask: 1 or True for real frames; a stretch has no others. Each utterance that has a stretch gives as many. ValueError if
    none has. generator: on the tensors' device.
    """
    speech_BNRD, mouth_BNFM = stretches(speech_BSD, motion_BTX)
    whole_BN = mask_BT.bool().unfold(1, FRAMES, 1).all(-1)
    (able_A,) = whole_BN.any(1).nonzero(as_tuple=True)
    if not len(able_A):
        raise ValueError(f"no utterance of the batch has {FRAMES} real frames in a row")
    each = math.ceil(clips / len(able_A))
    at_An = torch.multinomial(whole_BN[able_A].float(), each, replacement=True, generator=generator)
    chosen = able_A[:, None], at_An
    cosine_B = network(speech_BNRD[chosen].flatten(0, 1), mouth_BNFM[chosen].flatten(0, 1))
    return cross_entropy(cosine_B, torch.ones_like(cosine_B, dtype=torch.bool))


@torch.no_grad()
def confidence(network: SyncNet, speech_SD: Tensor | np.ndarray, motion_TX: Tensor | np.ndarray) -> float:
    """The mean cosine of all stretches of 5 frames of an utterance, 0 to 1. ValueError if it has none."""
    device = next(network.parameters()).device
    speech_1SD, motion_1TX = (torch.as_tensor(rows, device=device).float()[None] for rows in (speech_SD, motion_TX))
    speech_1NRD, mouth_1NFM = stretches(speech_1SD, motion_1TX)
    return network(speech_1NRD[0], mouth_1NFM[0]).mean().item()
