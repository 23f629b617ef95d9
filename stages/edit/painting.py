"""The face of each frame painted anew, one frame after another, and kept for a run that goes on after a kill."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from data.files import atomic_file
from models.video_editing import generate
from models.video_editing.examples import Example
from models.video_editing.network import VideoEditingUNet
from stages.align import warp
from stages.edit.shots import Places
from stages.evaluate import EvaluateParams

KEPT_FRAMES = 100  # painted between two moments at which a killed run can go on: four seconds


class Painted(NamedTuple):
    """One face, in the aligned crop of a frame."""

    face: np.ndarray  # (S, S, 3) uint8, painted inside the box
    real: np.ndarray  # (S, S, 3) uint8, as it was
    box: np.ndarray  # (4,) int16, x0 y0 x1 y1, half open
    transform_23: np.ndarray  # float32, source pixels to aligned pixels
    shot: int  # its number


class Painter:
    """A network that paints one frame at a time, on the GPU if there is one; its noise follows from the seed and the frame."""

    def __init__(self, network: VideoEditingUNet, sampling: EvaluateParams, seed: int):
        if sampling.sampler not in get_args(generate.Sampler) or sampling.steps < 1:
            known = ", ".join(get_args(generate.Sampler))
            raise ValueError(
                f"no such sampling: {sampling.sampler}, {sampling.steps} steps; there are {known}, of 1 step or more"
            )
        self._network = network.to("cuda" if torch.cuda.is_available() else "cpu")
        self._sampler, self._seed = sampling.sampler, seed
        self._gammas = network.config.noise_schedule.alphas_cumprod(sampling.steps).tolist()
        self.config = network.config

    @torch.inference_mode()
    def paint(self, index: int, example: Example) -> np.ndarray:
        """The film's frame `index`, `(S, S, 3)` uint8."""
        size = self.config.image_size

        def noise(step: int) -> Tensor:
            random = np.random.default_rng((self._seed, index, step))
            return torch.from_numpy(random.standard_normal((1, 3, size, size), np.float32))

        (face,) = generate.paint(self._network, default_collate([example]), noise, self._sampler, self._gammas)  # type: ignore[arg-type]
        return face


def painted(
    frames: Iterator[tuple[int, np.ndarray]], places: Places, windows_NM: np.ndarray, painter: Painter, folder: Path
) -> Iterator[tuple[np.ndarray, Painted | None]]:
    """For each of the N frames of the film, the source's frame and its painted face; None where there is no face to paint.

    frames: index in the source, and the frame. windows_NM: what each frame hears. folder: keeps the paint of finished stretches.
    The identity frame is the shot's first one with a face, as it was filmed; the frame before is the painted one, or, where
    there is none, the identity frame.
    """
    found_T = places.found
    identities: dict[int, np.ndarray] = {}  # of each shot
    source_before, face_before = -2, np.empty(0, np.uint8)
    for start in range(0, len(windows_NM), KEPT_FRAMES):
        kept = folder / f"{start:08d}.npz"
        known = read(kept) if kept.exists() else None
        patches: list[np.ndarray] = []
        for index, (source, frame) in enumerate(islice(frames, min(KEPT_FRAMES, len(windows_NM) - start)), start):
            if not found_T[source]:
                yield frame, None
                continue
            box, shot, transform_23 = places.boxes[source], places.shots[source], places.transforms[source]
            real = warp(frame, transform_23, painter.config.image_size)
            identity = identities.setdefault(shot, real)
            follows = abs(source - source_before) <= 1 and places.shots[source_before] == shot
            x0, y0, x1, y1 = box
            if known is None:
                arrays = real, face_before if follows else identity, identity, windows_NM[index], box
                face = painter.paint(index, Example(*map(torch.from_numpy, arrays)))
            else:
                face = real.copy()
                face[y0:y1, x0:x1] = known[len(patches)]
            patches.append(face[y0:y1, x0:x1])
            source_before, face_before = source, face
            yield frame, Painted(face, real, box, transform_23, int(shot))
        if known is None:
            with atomic_file(kept) as file:
                np.savez_compressed(file, *patches)


def read(path: Path) -> list[np.ndarray]:
    """What is painted inside the boxes of a stretch's frames, in their order."""
    with np.load(path) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]
