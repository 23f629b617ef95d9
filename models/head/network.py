"""The head's radiance field, in two forms behind one interface.

B  batch     F  frames of motion about one frame     X  numbers of motion in a frame     E  64 numbers of a code
N  rays     M  samples of all rays
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from models.head.config import Config
from models.landmarks import VALUES
from models.radiance import cameras, encodings, fields, marching, sampling
from models.radiance.marching import Evaluated, Painted
from models.windows import CODE, WindowAttention, WindowEncoder

HARMONICS = 16  # numbers of a direction (grid)
FRAME_CODE = 4  # numbers of what is a frame's own (grid; release)
AT_ONCE = 4  # samples of a ray that are asked for before rays that see nothing further are left out (grid, when generating)
SCENES = {"canonical": cameras.CANONICAL, "release": cameras.RELEASE}


class Head(nn.Module, ABC):
    """What both forms share: the motion's code, and the person's motion as numbers about 0.

    Rays are in the head frame, metres, with unit directions; colours in [0, 1].
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.window_encoder = WindowEncoder(VALUES, rows=1)
        self.window_attention = WindowAttention(config.windows, channels=CODE)
        self.mean_X: Tensor  # of the person's motion, centimetres
        self.std_X: Tensor
        self.register_buffer("mean_X", torch.zeros(VALUES))
        self.register_buffer("std_X", torch.ones(VALUES))

    def normalised(self, motion_TX: Tensor) -> Tensor:
        """Motion in centimetres, as models/landmarks.py has it -> as the network reads it."""
        return (motion_TX - self.mean_X) / self.std_X

    def codes(self, motion_BFX: Tensor, attend: bool = True) -> Tensor:
        """Normalised motion of the frames about each of B -> their codes (B, E). attend: False for that of the middle alone."""
        codes_BFE = self.window_encoder(motion_BFX.flatten(0, 1)[:, None]).unflatten(0, motion_BFX.shape[:2])
        return self.window_attention(codes_BFE) if attend else codes_BFE[:, codes_BFE.shape[1] // 2]

    @abstractmethod
    def render(
        self,
        origins_N3: Tensor,
        directions_N3: Tensor,
        code_E: Tensor,
        background_N3: Tensor,
        generator: torch.Generator | None,
        frame: int = 0,
    ) -> Painted:
        """What the rays see of one moment of the head, over the background.

        generator: draws where samples are, in training; None when generating. frame: number of a training frame, for what is
        its own; 0 when generating (release). Of the forms, the grid's alone has such codes.
        """


class MlpHead(Head):
    """The paper's: two deep networks, asked for many samples of each ray."""

    def __init__(self, config: Config):
        super().__init__(config)
        position = 3 * (1 + 2 * config.position_octaves) + CODE
        direction = 3 * (1 + 2 * config.direction_octaves)
        color_hidden = config.hidden // 2
        self.coarse = fields.Field(position, direction, config.hidden, color_hidden)
        self.fine = fields.Field(position, direction, config.hidden, color_hidden)
        for field in (self.coarse, self.fine):
            field.density_out.bias.data += config.fog

    def render(
        self,
        origins_N3: Tensor,
        directions_N3: Tensor,
        code_E: Tensor,
        background_N3: Tensor,
        generator: torch.Generator | None,
        frame: int = 0,
    ) -> Painted:
        rendered = self.render_both(origins_N3, directions_N3, code_E, background_N3, generator)
        # The last sample of either network is the background, for which nothing is asked.
        asked = 2 * self.config.coarse_samples + self.config.fine_samples - 2
        samples_N = torch.full((len(origins_N3),), asked, device=origins_N3.device)
        return Painted(rendered.color, rendered.opacity, torch.zeros_like(rendered.opacity), samples_N)

    def render_both(
        self,
        origins_N3: Tensor,
        directions_N3: Tensor,
        code_E: Tensor,
        background_N3: Tensor,
        generator: torch.Generator | None,
    ) -> sampling.Rendered:
        """As `render`, and what the coarse network sees, which is trained too."""

        def of(field: fields.Field) -> sampling.RadianceField:
            def at(positions_M3: Tensor, directions_M3: Tensor) -> tuple[Tensor, Tensor]:
                position = encodings.frequencies(positions_M3, self.config.position_octaves)
                direction = encodings.frequencies(directions_M3, self.config.direction_octaves)
                return field(torch.cat([position, code_E.expand(len(position), -1)], dim=1), direction)

            return at

        # The release's cameras have their heads at 0.6 m and see from 0.3 to 0.9; ours are where the focal length has them.
        distance_N = origins_N3.norm(dim=1)
        return sampling.render_coarse_fine(
            of(self.coarse),
            of(self.fine),
            origins_N3,
            directions_N3,
            distance_N - self.config.reach,
            distance_N + self.config.reach,
            self.config.coarse_samples,
            self.config.fine_samples,
            background_N3,
            generator,
        )


class GridHead(Head):
    """The release's v1.1: tables of features, and the motion as two more coordinates of space ("ambient", RAD-NeRF)."""

    def __init__(self, config: Config):
        super().__init__(config)
        scene = SCENES[config.scene]
        self.position_grid, self.ambient_grid = (
            encodings.Grid(dimensions, config.levels, finest=config.finest, log2_rows=config.log2_rows) for dimensions in (3, 2)
        )
        hidden, width = config.hidden, self.position_grid.width
        self.ambient_net = fields.mlp([width + CODE, hidden, hidden, 2])
        self.density_net = fields.mlp([width + self.ambient_grid.width, hidden, hidden, 1 + hidden])
        self.color_net = fields.mlp([HARMONICS + hidden + FRAME_CODE, hidden, 3])
        self.frame_codes = nn.Parameter(0.1 * torch.randn(config.frame_codes, FRAME_CODE))
        self.occupancy = marching.Occupancy(scene, config.cells)

    def geometry(self, positions_M3: Tensor, code_E: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of positions in the field's cube: densities (M,), what the colour goes by (M, hidden), ambient coordinates (M, 2)."""
        position = self.position_grid(encodings.to_unit(positions_M3))
        ambient_M2 = self.ambient_net(torch.cat([position, code_E.expand(len(position), -1)], dim=1)).tanh()
        output = self.density_net(torch.cat([position, self.ambient_grid(encodings.to_unit(ambient_M2))], dim=1))
        return fields.density(output[:, 0]), output[:, 1:], ambient_M2

    def render(
        self,
        origins_N3: Tensor,
        directions_N3: Tensor,
        code_E: Tensor,
        background_N3: Tensor,
        generator: torch.Generator | None,
        frame: int = 0,
    ) -> Painted:
        def at(positions_M3: Tensor, directions_M3: Tensor) -> Evaluated:
            densities_M, geometry_MG, ambient_M2 = self.geometry(positions_M3, code_E)
            own = self.frame_codes[frame].expand(len(geometry_MG), -1)
            color = self.color_net(torch.cat([encodings.harmonics(directions_M3), geometry_MG, own], dim=1))
            return Evaluated(color.sigmoid(), densities_M, ambient_M2.abs().sum(dim=1))

        most, scene = self.config.ray_samples, self.occupancy.scene
        origins_N3, directions_N3 = scene.enter(origins_N3), scene.turn(directions_N3)
        found = marching.march(self.occupancy, origins_N3, directions_N3, generator, samples=most)
        at_once = most if self.training else min(most, AT_ONCE)
        return marching.paint(at, found, background_N3, samples=most, at_once=at_once)

    def renew_occupancy(self, code_E: Tensor, generator: torch.Generator) -> None:
        """Looks again which cells of space are empty, under one moment's motion. A new field takes none for it."""
        self.occupancy.renew(lambda positions_M3: self.geometry(positions_M3, code_E)[0], generator)


def build(config: Config) -> Head:
    """The form that the configuration names."""
    return MlpHead(config) if config.form == "mlp" else GridHead(config)
