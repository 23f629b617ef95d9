"""The objectives of both forms (release; RAD-NeRF, arXiv 2211.12368), and their optimisation with Lightning.

N  rays     F  frames of motion about one frame     E  64 numbers of a code     H, W  pixels
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from models.checkpoint import write_checkpoint
from models.given import Given
from models.head.config import Config
from models.head.examples import Example, person_of
from models.head.network import GridHead, Head, MlpHead
from models.head.network import build as build_network
from models.noise import seed_of
from models.perceptual import Perceptual
from models.radiance.cameras import rays
from models.radiance.encodings import Grid
from models.streaming import rank_and_ranks

MARGIN = 2  # pixels by which the parsing may be wrong about where the head ends
CLEAR = 1e-5  # opacities are kept that far from 0 and 1 in their entropy (release)


def build(config: Config, given: Given) -> "HeadTraining":
    """What `models.trainer` trains, in the units of the person's motion. Raises NoBackbone, and ValueError for unfit clips."""
    person = person_of(given.train)
    head = build_network(config)
    head.mean_X.copy_(torch.from_numpy(person.mean))
    head.std_X.copy_(torch.from_numpy(person.std))
    if isinstance(head, GridHead):
        if len(person.poses) > config.frame_codes:
            raise ValueError(
                f"{given.train} has {len(person.poses)} frames, and {config.frame_codes} have codes: set frame_codes in the "
                "system's overrides"
            )
        head.occupancy.exclude_unseen(torch.from_numpy(person.poses), *person.camera, person.size)
    return HeadTraining(head, Perceptual.load(Path(config.backbone)) if config.perceptual_weight else None)


class Shot(NamedTuple):
    """Rays of one frame, with what they should see."""

    origins: Tensor  # (N, 3) metres, head frame
    directions: Tensor  # (N, 3)
    target: Tensor  # (N, 3) in [0, 1]
    background: Tensor  # (N, 3)
    face: Tensor  # (N,) bool: may move with the face's motion
    motion: Tensor  # (F, X)
    number: int  # of the frame


def binary_entropy(probability: Tensor) -> Tensor:
    """In bits."""
    p = probability.clamp(CLEAR, 1 - CLEAR)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


def box_mask(box_4: Tensor, height: int, width: int) -> Tensor:
    """(H, W) bool, true inside of x0 y0 x1 y1, half open."""
    x0, y0, x1, y1 = box_4
    x, y = torch.arange(width, device=box_4.device), torch.arange(height, device=box_4.device)[:, None]
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def ambient_mask(example: Example, config: Config) -> Tensor:
    """(H, W) bool: where the motion may be heard for nothing."""
    height, width = example.image.shape[:2]
    if config.ambient_box == "face":
        return box_mask(example.face, height, width)
    x0, y0, x1, y1 = example.face
    return box_mask(torch.stack([x0, x1 - x0, y0, y1 - y0]), height, width)


def drawn_pixels(example: Example, config: Config, generator: torch.Generator) -> Tensor:
    """(N,) indices of pixels, row by row, with replacement: `face_share` of them in the face's rectangle, the others outside."""
    height, width = example.image.shape[:2]
    face_P = box_mask(example.face, height, width).flatten()
    in_face = round(config.face_share * config.rays)
    if config.face_share == 0 or face_P.all():
        parts = [(torch.ones_like(face_P), config.rays)]
    else:
        parts = [(face_P, in_face), (~face_P, config.rays - in_face)]
    chosen = []
    for mask_P, count in parts:
        candidates = mask_P.nonzero()[:, 0]
        chosen.append(candidates[torch.randint(len(candidates), (count,), device=candidates.device, generator=generator)])
    return torch.cat(chosen)


def lip_pixels(example: Example) -> Tensor:
    """(N,) indices of the pixels of the square around the lips, row by row."""
    return box_mask(example.lips, *example.image.shape[:2]).flatten().nonzero()[:, 0]


def chosen_pixels(example: Example, config: Config, lips: bool, generator: torch.Generator) -> Tensor:
    """(N,) indices of the pixels of a step, those of the lips' square last where it takes it."""
    if not lips:
        return drawn_pixels(example, config, generator)
    if config.lips == "alone":
        return lip_pixels(example)
    return torch.cat([drawn_pixels(example, config, generator), lip_pixels(example)])


def shot_of(example: Example, pixels_N: Tensor, config: Config) -> Shot:
    """The rays through these pixels of the frame."""
    width = example.image.shape[1]
    places_N2 = torch.stack([pixels_N % width, pixels_N // width], dim=1).float()
    x, y = example.center.tolist()
    origins_N3, directions_N3 = rays(example.pose, example.focal.item(), (x, y), places_N2)
    return Shot(
        origins_N3,
        directions_N3,
        example.image.flatten(0, 1)[pixels_N] / 255,
        example.behind.flatten(0, 1)[pixels_N] / 255,
        ambient_mask(example, config).flatten()[pixels_N],
        example.motion,
        int(example.number),
    )


def surely_head(example: Example) -> Tensor:
    """(H, W) bool: head, and `MARGIN` pixels from what may be something else."""
    other_11HW = (~example.head)[None, None].float()
    return F.max_pool2d(other_11HW, 2 * MARGIN + 1, 1, MARGIN)[0, 0] == 0


def before_anything(shot: Shot, head_N: Tensor, generator: torch.Generator) -> Shot:
    """The shot with a colour drawn for the background of each ray that hits the head."""
    drawn_N3 = torch.rand(shot.background.shape, device=shot.background.device, generator=generator)
    return shot._replace(background=torch.where(head_N[:, None], drawn_N3, shot.background))


def code_of(network: Head, config: Config, shot: Shot, step: int) -> Tensor:
    """(E,) of the frame's motion, as this step of the training has it."""
    return network.codes(shot.motion[None], attend=step >= config.attention_start)[0]


class Judged(NamedTuple):
    """What comes of the rays of one frame."""

    loss: Tensor
    color: Tensor  # (N, 3)
    told: dict[str, Tensor]  # worth a curve, by name


def objective(network: Head, config: Config, shot: Shot, code_E: Tensor, step: int, generator: torch.Generator) -> Judged:
    """mlp: both networks' error. grid: the picture's; rays that see half of something; motion heard outside of the face."""
    if isinstance(network, MlpHead):
        rendered = network.render_both(shot.origins, shot.directions, code_E, shot.background, generator)
        loss = F.mse_loss(rendered.color, shot.target) + F.mse_loss(rendered.coarse_color, shot.target)
        return Judged(loss, rendered.color, {})
    painted = network.render(shot.origins, shot.directions, code_E, shot.background, generator, shot.number)
    entropy = binary_entropy(painted.opacity).mean()
    ambient = (painted.ambient * ~shot.face).mean()
    ambient_weight = config.ambient_weight * min(step / config.ambient_steps, 1)
    loss = F.mse_loss(painted.color, shot.target) + config.entropy_weight * entropy + ambient_weight * ambient
    return Judged(loss, painted.color, {"entropy": entropy, "ambient": ambient, "samples": painted.samples.float().mean()})


def difference(perceptual: Perceptual, config: Config, color_N3: Tensor, target_N3: Tensor, height: int, width: int) -> Tensor:
    """LPIPS of the pictures that rays make row by row."""
    one, other = (colors.T.reshape(1, 3, height, width) for colors in (color_N3, target_N3))
    if config.perceptual_range == "correct":
        one, other = 2 * one - 1, 2 * other - 1
    return perceptual(one, other).mean()


class HeadTraining(LightningModule):
    """Trains `network`."""

    strategy = "ddp_find_unused_parameters_true"  # on several GPUs: the windows' weighting may begin late

    def __init__(self, network: Head, perceptual: Perceptual | None):
        super().__init__()
        self.network, self.config = network, network.config
        self._perceptual = (perceptual,)  # in a tuple: it is frozen, and no part of the resume state

    def training_step(self, batch: Example, batch_idx: int) -> Tensor:
        config, network, step = self.config, self.network, self.global_step
        # Of the step, so that a training that was killed draws what it would have drawn.
        generator = torch.Generator(self.device).manual_seed(seed_of(config.seed, f"{step} {rank_and_ranks()[0]}") % 2**63)
        lips = step >= config.lip_start and step % 2 == 1
        renewing = step < config.lip_start and step % config.renew_every == 0
        losses: list[Tensor] = []
        for frame in zip(*batch, strict=True):
            example = Example(*frame)
            pixels_N = chosen_pixels(example, config, lips, generator)
            shot = shot_of(example, pixels_N, config)
            if config.behind == "random":
                shot = before_anything(shot, surely_head(example).flatten()[pixels_N], generator)
            code_E = code_of(network, config, shot, step)
            if isinstance(network, GridHead) and renewing and not losses:
                network.renew_occupancy(code_E.detach(), generator)
            judged = objective(network, config, shot, code_E, step, generator)
            losses.append(judged.loss)
            (perceptual,) = self._perceptual
            if lips and perceptual is not None:
                x0, y0, x1, y1 = example.lips.tolist()
                of_lips = slice(-(y1 - y0) * (x1 - x0), None)
                color_L3, target_L3 = judged.color[of_lips], shot.target[of_lips]
                seen = difference(perceptual.to(self.device), config, color_L3, target_L3, y1 - y0, x1 - x0)
                losses[-1] = losses[-1] + config.perceptual_weight * seen
        loss = torch.stack(losses).mean()
        self.log_dict({"train_loss": loss} | judged.told, batch_size=len(losses))
        return loss

    def validation_step(self, batch: Example, batch_idx: int) -> None:
        """The mean squared error of rays from all over the frame, the same each time; and as decibels."""
        config, errors = self.config, []
        for index, example in enumerate(Example(*frame) for frame in zip(*batch, strict=True)):
            generator = torch.Generator(self.device).manual_seed(batch_idx * config.batch_size + index)
            pixels = example.image.shape[0] * example.image.shape[1]
            pixels_N = torch.randint(pixels, (config.rays,), device=self.device, generator=generator)
            shot = shot_of(example, pixels_N, config)
            code_E = code_of(self.network, config, shot, self.global_step)
            painted = self.network.render(shot.origins, shot.directions, code_E, shot.background, None)
            errors.append(F.mse_loss(painted.color, shot.target))
        error_B = torch.stack(errors)
        self.log("val_loss", error_B.mean(), batch_size=len(error_B), sync_dist=True)
        self.log("val_psnr", (-10 * error_B.log10()).mean(), batch_size=len(error_B), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config, network = self.config, self.network
        tables = [grid.embeddings for grid in network.modules() if isinstance(grid, Grid)]
        attention = list(network.window_attention.parameters())
        others = {id(parameter) for parameter in (*tables, *attention)}
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in network.parameters() if id(parameter) not in others]},
            {"params": attention, "lr": config.attention_rate * config.learning_rate},
        ]
        if tables:
            groups.append({"params": tables, "lr": config.grid_rate * config.learning_rate})
        adam = torch.optim.Adam(groups, config.learning_rate, eps=config.adam_epsilon)
        falling = LambdaLR(adam, lambda step: 0.1 ** (step / config.decay_steps))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falling, "interval": "step"}}

    def save(self, folder: Path, card: str) -> None:
        """Writes the field as a checkpoint that `generate.load` reads."""
        write_checkpoint(folder, self.network, self.config, card)
