"""Pictures to rays, and the head frame to a field's own coordinates.

Poses are camera-from-head (4, 4), metres, OpenCV's axes: x right, y down, z away from the camera. The head frame is that of the
column `vertices`: x to the person's left, y up, z out of the face. Places in a picture are x, y in pixels; the middle of the
first pixel is (0, 0), as in the column `camera`. (In the release it is (0.5, 0.5): a half is to be taken from its centre.)

N  rays or points
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

AXES = (1, 2, 0)  # of the head frame, in the order of a field's: y, z, x (release, "ngp")


@dataclass(frozen=True)
class Scene:
    """Where a field looks: its coordinates are `scale` times the metres from `center`, axes reordered y, z, x.

    A field covers the cube [-1, 1]³ (the release's bound of 1); what is outside of `box` is never sampled. The defaults are the
    release's.
    """

    scale: float = 4.0  # field units in a metre: the release's camera_scale
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, y, z of the head frame, metres
    box: tuple[float, ...] = (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)  # least y z x, then greatest; field units

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scene: scale is {self.scale}; it must be greater than 0")
        if len(self.center) != 3 or len(self.box) != 6:
            raise ValueError(f"scene: center {self.center} must have 3 numbers and box {self.box} 6")
        if not all(-1 <= least < greatest <= 1 for least, greatest in zip(self.box[:3], self.box[3:], strict=True)):
            raise ValueError(f"scene: box {self.box} must be the least y, z, x, then the greatest, all in [-1, 1]")

    def enter(self, points_N3: Tensor) -> Tensor:
        """Points of the head frame, metres -> the field's coordinates."""
        return self.scale * (points_N3 - points_N3.new_tensor(self.center))[..., AXES]

    def leave(self, points_N3: Tensor) -> Tensor:
        """The inverse of `enter`."""
        y, z, x = points_N3.unbind(-1)
        return torch.stack((x, y, z), -1) / self.scale + points_N3.new_tensor(self.center)

    def turn(self, directions_N3: Tensor) -> Tensor:
        """Directions of the head frame -> of the field, as long as they were."""
        return directions_N3[..., AXES]


RELEASE = Scene()

# MediaPipe's canonical face stands with its chin at y = -0.10, its nose's tip at z = 0.08 and its ears near x = ±0.08, z = -0.03.
# 40 cm of width, 40 cm of height (y from -0.17 to 0.23) and 28 cm of depth (z from -0.175 to 0.105) hold the skull behind it with
# hair that stands up, hangs to the shoulders or is knotted, and fill more of the cube than the release's 50 cm.
CANONICAL = Scene(scale=5.0, center=(0.0, 0.03, -0.035), box=(-1.0, -0.7, -1.0, 1.0, 0.7, 1.0))


def pixels(width: int, height: int, device: torch.device | None = None) -> Tensor:
    """(height width, 2) float32: x, y of every pixel's middle, row by row."""
    y_HW, x_HW = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((x_HW, y_HW), -1).reshape(-1, 2).float()


def rays(pose_44: Tensor, focal: float, center: tuple[float, float], places_N2: Tensor) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (N, 3) of the rays through points of the picture, in the head frame, metres."""
    rotation_33, shift_3 = pose_44[:3, :3], pose_44[:3, 3]
    camera_N3 = F.pad((places_N2 - places_N2.new_tensor(center)) / focal, (0, 1), value=1.0)
    directions_N3 = F.normalize(camera_N3, dim=-1) @ rotation_33
    return (-shift_3 @ rotation_33).expand_as(directions_N3), directions_N3


def project(pose_44: Tensor, focal: float, center: tuple[float, float], points_N3: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the head frame, metres -> places in the picture (N, 2) and depths (N,), metres before the camera."""
    camera_N3 = points_N3 @ pose_44[:3, :3].T + pose_44[:3, 3]
    depth_N = camera_N3[:, 2]
    return focal * camera_N3[:, :2] / depth_N[:, None] + points_N3.new_tensor(center), depth_N


def box_span(origins_N3: Tensor, directions_N3: Tensor, box_6: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Where rays enter a box and leave it: near, far (N,), near at least `least`. far <= near: the ray misses it."""
    # A direction without some component never crosses those two faces: what divides it must not be zero.
    tiny = torch.finfo(directions_N3.dtype).tiny
    divisor_N3 = torch.where(directions_N3.abs() < tiny, tiny, directions_N3)
    one_N3, other_N3 = (box_6[:3] - origins_N3) / divisor_N3, (box_6[3:] - origins_N3) / divisor_N3
    near_N = torch.minimum(one_N3, other_N3).amax(-1).clamp(min=least)
    return near_N, torch.maximum(one_N3, other_N3).amin(-1)
