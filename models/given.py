"""What a training is given, as folders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Given:
    """For `training.build` and `examples.loaders` of whatever is trained."""

    train: Path  # shard set
    val: Path  # shard set
    beside: Mapping[str, Path] = field(default_factory=dict)  # by name: checkpoints that it stands on, and further shard sets
    step: int = 0  # that it goes on from
