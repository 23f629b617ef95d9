"""A trained head, and its pictures.

T  frames     H, W  pixels     X  numbers of motion in a frame     N  rays
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import read_config, read_weights
from models.head.config import Config
from models.head.examples import Camera, motion_windows
from models.head.network import Head, build
from models.radiance.cameras import pixels, rays

CHUNK = {"mlp": 2048, "grid": 1 << 16}  # rays rendered at once


class Picture(NamedTuple):
    """What all rays of a picture see."""

    color: Tensor  # (H, W, 3) in [0, 1], the head over what is behind it
    opacity: Tensor  # (H, W) in [0, 1], of the head
    samples: Tensor  # (H, W) int64, for how many the field was asked


def load(checkpoint: Path) -> Head:
    """The head of a checkpoint folder, ready to generate. Raises BadCheckpoint."""
    head = build(read_config(checkpoint, Config))
    read_weights(checkpoint, head)
    return head.eval().requires_grad_(False)


def paint(head: Head, motion_TX: np.ndarray, pose_T44: np.ndarray, camera: Camera, background: np.ndarray) -> np.ndarray:
    """The head's frames, (T, H, W, 3) uint8.

    motion: centimetres, as models/landmarks.py has it. pose: camera from head, metres. background: (H, W, 3) uint8, or one for
    each frame, (T, H, W, 3): its size is that of the pictures, of which `camera` is. The head is where its weights are.
    """
    behind = background if background.ndim == 4 else [background] * len(motion_TX)
    pictures = painted(head, motion_TX, pose_T44, camera, behind)
    return np.stack([(255 * picture.color).round().to(torch.uint8).cpu().numpy() for picture in pictures])


@torch.inference_mode()
def painted(
    head: Head,
    motion_TX: np.ndarray,
    pose_T44: np.ndarray,
    camera: Camera,
    behind: Iterable[np.ndarray],
) -> Iterator[Picture]:
    """As `paint`, one picture after the other: their colours without `behind` are color - (1 - opacity) behind."""
    if head.training:
        raise ValueError("the head is in training mode, where it is drawn from which samples it is made: call head.eval()")
    device = head.mean_X.device
    normalised_TX = head.normalised(torch.from_numpy(np.asarray(motion_TX, np.float32)).to(device))
    windows_TFX = motion_windows(normalised_TX.cpu().numpy(), head.config.windows, "edge")
    codes_TE = head.codes(torch.from_numpy(windows_TFX).to(device))
    poses_T44 = torch.from_numpy(np.asarray(pose_T44, np.float32)).to(device)
    for code_E, pose_44, behind_HW3 in zip(codes_TE, poses_T44, behind, strict=True):
        yield picture(head, code_E, pose_44, camera, torch.tensor(behind_HW3, device=device) / 255)


@torch.inference_mode()
def picture(head: Head, code_E: Tensor, pose_44: Tensor, camera: Camera, behind_HW3: Tensor) -> Picture:
    """One picture of a head of the motion `code`, before what is behind it, in [0, 1]. All on one device."""
    height, width = behind_HW3.shape[:2]
    pixels_P2 = pixels(width, height, code_E.device)
    seen = []
    for places_N2, behind_N3 in zip(
        pixels_P2.split(CHUNK[head.config.form]), behind_HW3.flatten(0, 1).split(CHUNK[head.config.form]), strict=True
    ):
        origins_N3, directions_N3 = rays(pose_44, camera.focal, camera.center, places_N2)
        seen.append(head.render(origins_N3, directions_N3, code_E, behind_N3, None))
    color, opacity, _, samples = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return Picture(color.clamp(0, 1).reshape(height, width, 3), opacity.reshape(height, width), samples.reshape(height, width))
