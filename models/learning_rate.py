"""How the learning rate goes over a training."""

import math
from functools import partial
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Decay = Literal["none", "cosine"]  # "cosine": a short warm-up, then falling to 0 at the last step


def decaying(optimizer: Optimizer, decay: Decay, steps: int) -> Any:
    """What a LightningModule's `configure_optimizers` returns: the optimizer with its learning rate over so many steps."""
    if decay == "none":
        return optimizer
    cosine = LambdaLR(optimizer, partial(warm_cosine, steps=steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def warm_cosine(step: int, steps: int) -> float:
    """Share of the learning rate: rising over the first thirtieth of the training, then falling to 0 along half a cosine wave."""
    warm = max(1, steps // 30)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
