"""The noise that sampling begins from, and adds: it follows from seeds, on any device and in any batch."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def seed_of(seed: int, key: str) -> int:
    """The seed of a clip, of a run's seed and the clip's key."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big")


class Noise:
    """Noise of each row and step, from generators of their own."""

    def __init__(self, seeds: Sequence[tuple[int, int]], shape: tuple[int, ...]):
        """seeds: of each row, with the number of its frame. shape: of a row."""
        self.seeds, self.shape = seeds, shape

    def __call__(self, step: int) -> Tensor:
        """Standard normal (B, *shape) float32."""
        noises = [np.random.default_rng((*seed, step)).standard_normal(self.shape, np.float32) for seed in self.seeds]
        return torch.from_numpy(np.stack(noises))
