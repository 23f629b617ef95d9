"""Every number of the head's field, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.presets import WrongConfig, changed, check_types

Form = Literal["mlp", "grid"]
Padding = Literal["edge", "zeros"]
Lips = Literal["alone", "beside"]


@dataclass(frozen=True)
class Config:
    """Sources: "release", the authors' code, which has both forms. "mlp", "grid": the form that alone reads the field."""

    form: Form  # "mlp": two deep networks, sampled along the whole ray (paper); "grid": tables of features (release v1.1)

    # Pictures and space
    image_size: int  # pixels, height and width to which the frames are reduced (release: 512)
    # grid: the box of the head frame that is sampled; see models/radiance/cameras.py. "release" for its weights.
    scene: Literal["canonical", "release"]
    reach: float  # mlp: metres before and behind the head's origin that rays are followed (release: 0.3)

    # Condition
    windows: int  # frames of motion about the frame whose codes are weighted into one, an odd number (release: 5)
    padding: Padding  # of the motion beyond a clip's ends in training (release: "zeros", though it generates with "edge")
    attention_start: int  # step from which the weighting counts; before, it's the frame's own code (release: mlp 200k, grid 0)

    # Network
    position_octaves: int  # mlp: of the positions' encoding (release: 10)
    direction_octaves: int  # mlp: of the directions' (release: 4)
    coarse_samples: int  # mlp: of a ray, evenly (release: 64)
    fine_samples: int  # mlp: further ones, where the coarse network finds something (release: 128)
    # mlp: density that a new field has everywhere, a metre; of next to none, none may ever grow, for its rectifier (release: 0)
    fog: float
    levels: int  # grid: resolutions of the tables (release: 16)
    finest: int  # grid: cells of a side at the finest level; the coarsest has 16 (release: 2048)
    log2_rows: int  # grid: logarithm of the rows of a table at most (release: 16)
    hidden: int  # grid: width of the small networks, and of what the density's tells the colour's; mlp: of the deep ones (256)
    frame_codes: int  # grid: rows of codes of training frames, one for what is a frame's own, at least as many (release: 13,000)
    cells: int  # grid: of a side of the grid that tells empty space, a power of 2 (release: 128)
    ray_samples: int  # grid: of a ray at most (release: 16)

    # Loss
    # What is behind the head in training, where the picture shows nothing but head: background and torso as elsewhere (release);
    # or another colour each time. With the former, where the head looks like them it may stay transparent for good.
    behind: Literal["seen", "random"]
    entropy_weight: float  # grid: of the rays' opacity being neither 0 nor 1, in bits (release: 1e-4)
    ambient_weight: float  # grid: of the face's motion being heard outside of the face, in the end (release: 0.1)
    ambient_steps: int  # grid: over which that weight rises from 0 (release: 250k)
    # grid: what is face there: the face's rectangle; or, as in the release, that rectangle with its width and height taken for
    # edges, which is normally empty, so that the face's own movement is punished too.
    ambient_box: Literal["face", "release"]
    face_share: (
        float  # of the rays in the face's rectangle, the others outside; 0 draws from the whole (release: mlp 0.95, grid 0)
    )
    lip_share: float  # grid: of the steps, the last, every other one of which takes the square around the lips (release: 0.2)
    lips: Lips  # grid: that square "alone" (release), or "beside" the frame's other rays
    perceptual_weight: float  # of LPIPS in that square (release: 0.01, by AlexNet; here by VGG-16); 0 needs no backbone
    backbone: str  # file of VGG-16's weights, for LPIPS: vgg16-397923af.pth, as torchvision has it
    perceptual_range: Literal["correct", "release"]  # LPIPS is of images in [-1, 1]; the release gives it some in [0, 1]

    # Training
    rays: int  # of a frame that a step takes (release: mlp 1600, grid 65,536)
    batch_size: int  # frames a step on each GPU (release: 1)
    learning_rate: float  # of Adam (release)
    grid_rate: float  # times that, for tables (release: 10)
    attention_rate: float  # times that, for the weighting of the windows (release: 5)
    adam_epsilon: float  # (release: grid 1e-15, mlp torch's own)
    decay_steps: int  # after which the learning rate is a tenth, and so on (release: 250k)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (release)
    renew_every: int  # grid: steps between two looks at which space is empty, none once the lips are taken (release: 16)
    steps: int  # optimiser steps (release: mlp 400k, grid 250k)
    precision: Literal["32-true"]  # as Lightning spells it (release: mlp 32 bit, grid half)
    seed: int  # of initial weights, examples and rays
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Examples
    buffer_clips: int  # decoded clips held by each loader process; a minute of 512² takes 2.4 GB
    frames_per_clip: int  # drawn before one clip of the buffer makes way for another; of each clip in validation
    loader_workers: int  # processes that decode, for each GPU; 0 decodes in the trainer itself

    def __post_init__(self):
        check_types(self)
        grid = self.form == "grid"
        sizes = (self.image_size, self.position_octaves, self.direction_octaves, self.levels, self.hidden, self.log2_rows)
        for holds, rule in (
            (min(sizes) > 0, "image_size, octaves, levels, hidden and log2_rows must be above 0"),
            (min(self.rays, self.batch_size, self.ray_samples) > 0, "rays, batch_size and ray_samples must be above 0"),
            (min(self.coarse_samples, self.fine_samples) > 2, "coarse_samples and fine_samples must be above 2"),
            (self.windows % 2 == 1, "windows must be odd, the frame in the middle"),
            (0 <= self.attention_start < self.steps, "attention_start must be below steps, as generation has the weighting"),
            (self.finest >= 16, "finest must be at least the coarsest level's 16"),
            (self.cells >= 8 and self.cells.bit_count() == 1, "cells must be a power of 2, at least 8"),
            (self.frame_codes > 0 and self.renew_every > 0, "frame_codes and renew_every must be above 0"),
            (self.reach > 0 and self.fog >= 0, "reach must be above 0, fog at least 0"),
            (min(self.entropy_weight, self.ambient_weight, self.perceptual_weight) >= 0, "weights must be at least 0"),
            (min(self.ambient_steps, self.decay_steps) > 0, "ambient_steps and decay_steps must be above 0"),
            (0 <= self.face_share <= 1 and 0 <= self.lip_share < 1, "face_share must be in [0, 1], lip_share in [0, 1)"),
            (grid or self.lip_share == 0, "the mlp form takes no squares around the lips: set lip_share to 0"),
            (self.perceptual_weight == 0 or self.backbone != "", "perceptual_weight needs backbone, or set it to 0"),
            (self.perceptual_weight == 0 or self.lip_share > 0, "perceptual_weight needs lip_share, or set it to 0"),
            (min(self.learning_rate, self.adam_epsilon) > 0, "learning_rate and adam_epsilon must be above 0"),
            (min(self.grid_rate, self.attention_rate) > 0, "grid_rate and attention_rate must be above 0"),
            (min(self.buffer_clips, self.frames_per_clip) > 0, "buffer_clips and frames_per_clip must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @property
    def lip_start(self) -> int:
        """Step from which squares around the lips are taken, and empty space is not looked at again."""
        return self.steps - round(self.lip_share * self.steps)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"head has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


MAY = Config(  # 3.1 M parameters; minutes of film at 512², six hours of a GPU
    form="grid",
    image_size=512,
    scene="release",
    reach=0.3,
    windows=5,
    padding="edge",
    attention_start=0,
    position_octaves=10,
    direction_octaves=4,
    coarse_samples=64,
    fine_samples=128,
    fog=0.0,
    levels=16,
    finest=2048,
    log2_rows=16,
    hidden=128,
    frame_codes=13_000,
    cells=128,
    ray_samples=16,
    behind="seen",
    entropy_weight=1e-4,
    ambient_weight=0.1,
    ambient_steps=250_000,
    ambient_box="face",
    face_share=0.0,
    lip_share=0.2,
    lips="alone",
    perceptual_weight=0.01,
    backbone="vgg16-397923af.pth",
    perceptual_range="correct",
    rays=65_536,
    batch_size=1,
    learning_rate=5e-4,
    grid_rate=10.0,
    attention_rate=5.0,
    adam_epsilon=1e-15,
    decay_steps=250_000,
    gradient_clip=0.0,
    renew_every=16,
    steps=250_000,
    precision="32-true",
    seed=0,
    log_every=50,
    val_every=2500,
    buffer_clips=16,
    frames_per_clip=32,
    loader_workers=0,  # the person's clips are decoded once and stay
)

# The paper's: 1.2 M parameters, of which 1,191,688 are the two deep networks; 30 hours of a GPU.
MAY_MLP = replace(
    MAY,
    form="mlp",
    hidden=256,
    attention_start=200_000,
    face_share=0.95,
    lip_share=0.0,
    perceptual_weight=0.0,
    backbone="",
    rays=1600,
    adam_epsilon=1e-8,
    steps=400_000,
)

# Under two minutes of one core, pictures of 128².
SAMPLE = replace(
    MAY,
    image_size=128,
    scene="canonical",
    levels=6,
    finest=160,
    log2_rows=14,
    hidden=32,
    frame_codes=2000,
    cells=32,
    behind="random",
    ambient_weight=0.01,
    ambient_steps=2000,
    face_share=0.5,
    lip_share=0.5,
    lips="beside",  # alone, and by squared errors only, they pull the whole face to their colours
    perceptual_weight=0.0,
    backbone="",
    rays=1536,
    learning_rate=2e-3,
    decay_steps=2000,
    steps=2000,
    log_every=20,
    val_every=1000,
)

# As small, to see what the grids save.
SAMPLE_MLP = replace(
    MAY_MLP,
    image_size=128,
    hidden=64,
    coarse_samples=16,
    fine_samples=16,
    fog=3.0,
    rays=384,
    attention_start=0,
    learning_rate=1e-3,
    decay_steps=600,
    steps=600,
    log_every=20,
    val_every=300,
)

PRESETS = {"may": MAY, "may_mlp": MAY_MLP, "sample": SAMPLE, "sample_mlp": SAMPLE_MLP}
