"""The torso, in two forms: a picture that the head's pose deforms, or a radiance field that the pose conditions.

N  pixels     E  numbers of a code

A torso moves with the head, but less: it knows the head's pose, and lies in the picture (grid) or in the space before the
camera of the first frame (mlp).
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.geneface.config import Config, Form
from models.radiance.cameras import AXES, RELEASE
from models.radiance.encodings import Grid, frequencies, to_unit
from models.radiance.fields import Field, mlp
from models.radiance.sampling import drawn, render_coarse_fine
from models.windows import CODE, WindowAttention, WindowEncoder

WINDOWS, ROWS = 8, 16  # windows of sound that the mlp form hears, and rows of each: two a frame (release)
HEARD = 2 * (WINDOWS - 1) + ROWS
SHRUNK = 0.8  # a pixel's place in [-1, 1]², times this: what deformation reaches beyond the picture has room (release)
COLOR_CODE = 16
SLOPE = 0.02
DIRECTION_OCTAVES, POSITION_OCTAVES = 4, 10  # of the mlp form
HAZE = 0.5  # density a metre of the mlp form's space at first: one that happens to begin empty would never learn (ours)
AT_ONCE: dict[Form, int] = {"grid": 1 << 16, "mlp": 1024}  # pixels painted at once when generating


class Seen(NamedTuple):
    """What the torso is painted from, at N pixels of one frame."""

    place: Tensor  # (N, 2) of the pixels in the picture, see `places`
    pose: Tensor  # (6,) of the head, see `pose_vector`
    head: Tensor  # (N, 4) the head's colour times its opacity, and its opacity; [0, 1]
    behind: Tensor  # (N, 3) the background's colour
    frame: int  # whose code is taken
    rays: tuple[Tensor, Tensor] | None  # origins and directions (N, 3) by the first frame's camera; the mlp form needs them
    sound: Tensor | None  # (30, D) rows about the frame; the mlp form hears them

    @property
    def head_over_background(self) -> Tensor:
        """(N, 3)."""
        return self.head[:, :3] + (1 - self.head[:, 3:]) * self.behind

    def part(self, pixels: slice) -> "Seen":
        """Some of the pixels."""
        rays = None if self.rays is None else (self.rays[0][pixels], self.rays[1][pixels])
        return self._replace(place=self.place[pixels], head=self.head[pixels], behind=self.behind[pixels], rays=rays)


class Layer(NamedTuple):
    """The torso, to be laid over the background or over the head."""

    color: Tensor  # (N, 3), times the opacity
    opacity: Tensor  # (N,)
    coarse: Tensor | None  # (N, 3) of the mlp form's coarse field, over the head and the background


def places(size: int, pixels_N: Tensor) -> Tensor:
    """(N, 2): how far down and how far right in a square picture pixels are, numbered row by row; -1 the first, 1 the last."""
    return 2 * torch.stack([pixels_N // size, pixels_N % size], dim=1) / (size - 1) - 1


def pose_vector(pose_T44: Tensor, form: Form) -> Tensor:
    """(T, 6): the camera's angles about x, y, z, radians, and its place, in the head's frame, as the release has them.

    pose: camera-from-head. grid: in the axes and units of `radiance.cameras.RELEASE`; the rotation is Rx Ry Rz. mlp: in the head
    frame's, metres; the rotation, of a camera whose y is up and whose z looks back, is Rz Ry Rx.
    """
    turned_T33 = pose_T44[:, :3, :3].mT
    place_T3 = -(turned_T33 @ pose_T44[:, :3, 3:])[..., 0]
    if form == "grid":
        turned_T33, place_T3 = turned_T33[:, AXES], RELEASE.enter(place_T3)
        # Of the transpose, Rz Ry Rx by the opposite angles.
        angles_T3 = -_angles(turned_T33.mT)
    else:
        angles_T3 = _angles(turned_T33 * pose_T44.new_tensor([1, -1, -1]))
    return torch.cat([angles_T3, place_T3], dim=-1)


def _angles(rotation_T33: Tensor) -> Tensor:
    """(T, 3): the angles about x, y, z of rotations Rz Ry Rx."""
    about_x = torch.atan2(rotation_T33[:, 2, 1], rotation_T33[:, 2, 2])
    about_y = -rotation_T33[:, 2, 0].clamp(-1, 1).asin()
    about_z = torch.atan2(rotation_T33[:, 1, 0], rotation_T33[:, 0, 0])
    return torch.stack([about_x, about_y, about_z], dim=-1)


def color_encoder(width: int) -> nn.Sequential:
    """The head's colour (and opacity) at a pixel to a code."""
    return nn.Sequential(
        nn.Linear(width, 16), nn.LeakyReLU(SLOPE), nn.Linear(16, 32), nn.LeakyReLU(SLOPE), nn.Linear(32, COLOR_CODE)
    )


class Torso(nn.Module, ABC):
    """What both forms share: the background as the person's films show it, and the camera that began them.

    in_front: whether it is laid over the head, or the head over it.
    """

    in_front: bool
    background: Tensor  # (S, S, 3) uint8
    first_pose: Tensor  # (4, 4) camera from head, of the first frame
    stand_in: Tensor  # () int64, number of the training frame whose code stands in for that of frames of other films

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.register_buffer("background", torch.zeros(config.image_size, config.image_size, 3, dtype=torch.uint8))
        self.register_buffer("first_pose", torch.eye(4))
        self.register_buffer("stand_in", torch.tensor(0))

    @abstractmethod
    def forward(self, seen: Seen, generator: torch.Generator | None) -> Layer:
        """generator: of what training draws; None when generating."""


class GridTorso(Torso):
    """A picture in a grid, whose pixels are moved as the pose says (release v1.1, after RAD-NeRF §3.3).

    Every pixel is asked for. The release keeps a grid of where the torso may be, to ask for fewer; when generating, that leaves
    out what has never had an opacity above 0, which a sigmoid always is.
    """

    in_front = False
    pose_mean: Tensor  # (6,) of the training poses
    pose_whitening: Tensor  # (6, 6) what their differences from it are multiplied by

    def __init__(self, config: Config):
        super().__init__(config)
        self.register_buffer("pose_mean", torch.zeros(6))
        self.register_buffer("pose_whitening", torch.eye(6))
        self.frames = nn.Parameter(0.1 * torch.randn(config.frames, config.frame_width))
        self.grid = Grid(2, config.levels, config.level_features, config.coarsest, config.finest, config.log2_rows)
        width = 2 * (1 + 2 * config.position_octaves) + 6 * (1 + 2 * config.pose_octaves) + config.frame_width
        if config.head_aware:
            self.head_encoder = color_encoder(4)
            width += COLOR_CODE
        self.deform = mlp((width, config.deform_hidden, config.deform_hidden, 2))
        self.paint = mlp((self.grid.width + width * config.shaded, config.color_hidden, config.color_hidden, 4))

    def forward(self, seen: Seen, generator: torch.Generator | None) -> Layer:
        """generator: of the draw whether the head is shown; when generating it always is."""
        place_N2 = SHRUNK * seen.place
        whitened_6 = (seen.pose - self.pose_mean) @ self.pose_whitening
        pose_6 = frequencies(whitened_6[None], self.config.pose_octaves)
        known = [frequencies(place_N2, self.config.position_octaves), pose_6.expand(len(place_N2), -1)]
        known.append(self.frames[seen.frame // self.config.frames_per_code % len(self.frames)].expand(len(place_N2), -1))
        if self.config.head_aware:
            shown = generator is None or bool(drawn((), place_N2, generator) < self.config.head_seen)
            known.append(self.head_encoder(seen.head if shown else torch.zeros_like(seen.head)))
        known_NK = torch.cat(known, dim=1)
        moved_N2 = (place_N2 + self.deform(known_NK)).clamp(-1, 1)
        found_NF = self.grid(to_unit(moved_N2))
        painted_N4 = self.paint(torch.cat([found_NF, known_NK], dim=1) if self.config.shaded else found_NF).sigmoid()
        return Layer(painted_N4[:, :1] * painted_N4[:, 1:], painted_N4[:, 0], None)

    def whiten(self, pose_T6: Tensor) -> None:
        """Has the poses of training, as `pose_vector` has them, come out uncorrelated and of one scale, by config.whitening."""
        self.pose_mean.copy_(pose_T6.mean(0))
        scale_6 = pose_T6.std(0) + 1e-6  # of a head that does not turn at all
        scaled_T6 = (pose_T6 - self.pose_mean) / scale_6
        covariance_66 = scaled_T6.mT @ scaled_T6 / len(scaled_T6) + self.config.whitening * torch.eye(6)
        variance_6, directions_66 = torch.linalg.eigh(covariance_66)
        self.pose_whitening.copy_(directions_66 / variance_6.sqrt() / scale_6[:, None])


class MlpTorso(Torso):
    """A radiance field in the space of the first frame's camera, that hears (paper; AD-NeRF, arXiv 2103.11078).

    Both of its fields are laid over the head's final colours; in the release, the coarse one over those of the head's coarse one.
    """

    in_front = True  # what it lets through is the head, and the background

    def __init__(self, config: Config):
        super().__init__(config)
        self.window_encoder = WindowEncoder(config.audio_width, ROWS)
        self.window_attention = WindowAttention(WINDOWS, CODE)
        self.color_encoder = color_encoder(3)
        condition = CODE + 6 * (1 + 2 * config.pose_octaves) + COLOR_CODE
        position, direction = 3 * (1 + 2 * POSITION_OCTAVES), 3 * (1 + 2 * DIRECTION_OCTAVES)
        self.coarse, self.fine = (Field(position + condition, direction) for _ in range(2))
        for field in (self.coarse, self.fine):
            nn.init.constant_(field.density_out.bias, HAZE)

    def forward(self, seen: Seen, generator: torch.Generator | None) -> Layer:
        """generator: of the samples along the rays; when generating they are even."""
        if seen.rays is None or seen.sound is None:
            raise ValueError("the mlp form of the torso needs rays and sound")
        windows_FRD = ((seen.sound - self.config.audio_mean) / self.config.audio_std).unfold(0, ROWS, 2).movedim(-1, -2)
        sound_E = self.window_attention(self.window_encoder(windows_FRD)[None])[0]
        angles_6, place_6 = (frequencies(part[None], self.config.pose_octaves)[0] for part in seen.pose.split(3))
        rest_E = torch.cat([sound_E, angles_6, place_6])
        behind_N3 = seen.head_over_background
        colors_NE = self.color_encoder(behind_N3)
        origins_N3, directions_N3 = seen.rays

        def field(network: Field, places_M3: Tensor, directions_M3: Tensor) -> tuple[Tensor, Tensor]:
            samples = len(places_M3) // len(colors_NE)
            condition_ME = torch.cat([rest_E.expand(len(places_M3), -1), colors_NE.repeat_interleave(samples, dim=0)], dim=1)
            position_MP = torch.cat([frequencies(places_M3, POSITION_OCTAVES), condition_ME], dim=1)
            return network(position_MP, frequencies(directions_M3, DIRECTION_OCTAVES))

        # Depths along the camera's axis to lengths of rays.
        slant_N = 1 / (directions_N3 @ self.first_pose[2, :3])
        found = render_coarse_fine(
            lambda places, directions: field(self.coarse, places, directions),
            lambda places, directions: field(self.fine, places, directions),
            origins_N3,
            directions_N3,
            self.config.near * slant_N,
            self.config.far * slant_N,
            self.config.coarse_samples,
            self.config.fine_samples,
            behind_N3,
            generator,
        )
        return Layer(found.color - (1 - found.opacity[:, None]) * behind_N3, found.opacity, found.coarse_color)


def build(config: Config) -> Torso:
    """The torso of the form that `config` names."""
    return GridTorso(config) if config.form == "grid" else MlpTorso(config)


def composed(layer: Layer, in_front: bool, seen: Seen) -> Tensor:
    """The picture's colours (N, 3) in [0, 1]: the torso before the head, or between the head and the background."""
    through_N1 = 1 - layer.opacity[:, None]
    if in_front:
        return layer.color + through_N1 * seen.head_over_background
    return seen.head[:, :3] + (1 - seen.head[:, 3:]) * (layer.color + through_N1 * seen.behind)


def picture(torso: Torso, seen: Seen) -> Tensor:
    """What the torso, the head and the background make together, (N, 3) in [0, 1]: when generating."""
    size = AT_ONCE[torso.config.form]
    parts = [seen.part(slice(first, first + size)) for first in range(0, len(seen.place), size)]
    return torch.cat([composed(torso(part, None), torso.in_front, part) for part in parts])
