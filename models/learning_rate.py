"""How the learning rate goes over a training."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

# "cosine": a short warm-up, then falling to 0 at the last step. "exponential": a warm-up, then falling for ever (GeneFace).
Decay = Literal["none", "cosine", "exponential"]

WARM_UP, TENTH = 1000, 250_000  # steps of GeneFace's warm-up, and those in which its rate falls to a tenth


def decaying(optimizer: Optimizer, decay: Decay, steps: int) -> Any:
    """What a LightningModule's `configure_optimizers` returns: the optimizer with its learning rate over so many steps."""
    if decay == "none":
        return optimizer
    share: Callable[[int], float] = partial(warm_cosine, steps=steps) if decay == "cosine" else warm_exponential
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, share), "interval": "step"}}


def warm_cosine(step: int, steps: int) -> float:
    """Share of the learning rate: rising over the first thirtieth of the training, then falling to 0 along half a cosine wave."""
    warm = max(1, steps // 30)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def warm_exponential(step: int) -> float:
    """Share of the learning rate: rising over the first 1000 steps, then 0.1^(step / 250,000), counted from the first of all."""
    return (step + 1) / WARM_UP if step < WARM_UP else 0.1 ** (step / TENTH)
