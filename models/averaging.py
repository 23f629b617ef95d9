"""Trainings that keep the moving average of the weights."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule
from torch import nn
from torch.optim.swa_utils import AveragedModel


class AveragingModule(LightningModule):
    """Trains `network`, and keeps in `average.module` the moving average of its weights, for validation and for saving.

    multi_avg_fn: as AveragedModel takes it.
    """

    def __init__(self, network: nn.Module, multi_avg_fn: Callable[..., None]):
        super().__init__()
        self.network = network
        # A submodule, so it is saved, restored and moved with the rest.
        self.average = AveragedModel(network, multi_avg_fn=multi_avg_fn)
        self.average.requires_grad_(False)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, and its share in the average. (After the batch would be too late: the resume state is saved before.)"""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)
