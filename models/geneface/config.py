"""Every number of the torso, and its presets. Those of what stands below: models/head, models/postnet, models/motion."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.hearing import Audio
from models.learning_rate import Decay
from models.presets import WrongConfig, changed, check_types

Form = Literal["mlp", "grid"]


@dataclass(frozen=True)
class Config:
    """Sources are "release", the authors' code, or "ours" for what it has not."""

    # Network
    form: Form  # "grid": a picture that the pose deforms (release v1.1, RAD-NeRF); "mlp": a radiance field (paper, AD-NeRF)
    image_size: int  # pixels, height and width of the frames, as the head has them (release: 512)
    position_octaves: int  # of a pixel's encoding, in the grid form (release: 10)
    pose_octaves: int  # of the head's pose (release: 4 in the grid form, 6 in the other)
    # Variance added to that of the training poses' numbers, each scaled to 1, before they are whitened, in the grid form; 0
    # leaves the pose as it is (release). A torso goes with the head's place in the picture, a small difference of large numbers
    # of the pose that go together: gradient descent does not find it.
    whitening: float
    frame_width: int  # numbers of each training frame's own code, in the grid form (release: 8)
    frames: int  # codes of training frames; when they are used up, they begin anew (release: 13000)
    # Training frames, one after another, that share a code (release: 1). With many, what moves quickly is left to the pose, which
    # is known of other films too; the code tells what drifts.
    frames_per_code: int
    # Whether what colours a pixel is told its place, the pose and the code too, in the grid form (release), or nothing but what
    # is in the grid where it was moved to: of a film of seconds, each pose's colours are learnt by heart.
    shaded: bool
    deform_hidden: int  # width of the network that moves pixels (release: 64)
    color_hidden: int  # width of the one that colours them (release: 32)
    levels: int  # of the grid (release: 16)
    level_features: int  # numbers of a grid point (release: 2)
    coarsest: int  # points a side of the coarsest level (release: 16)
    finest: int  # of the finest one (release: 2048)
    log2_rows: int  # rows of each level's table at most, as a power of 2 (release: 16)
    # Whether the torso sees the head's colour and opacity, in the grid form (release: in a variant); the other sees its colour.
    head_aware: bool
    head_seen: float  # probability that training shows them (release: 0.5, and in generation too, which flickers)
    audio: Audio  # column that the mlp form hears (release: what DeepSpeech hears)
    audio_width: int  # numbers in a row of that column (release: 29)
    audio_mean: float  # taken off its rows (release: 0)
    audio_std: float  # divides what remains (release: 1)
    near: float  # metres before the camera, where the mlp form begins to look (release: 0.3, its head about 0.6 away; ours 1)
    far: float  # and ends (release: 0.9)
    coarse_samples: int  # of a ray in the mlp form (release: 64)
    fine_samples: int  # where the coarse ones found something (release: 128)

    # Training
    pixels: int  # of one frame, a step (release: 65536 grid, 1600 mlp)
    lower_half: float  # share of them from the picture's lower half, the others above; 0 draws from it all (release: mlp 0.95)
    entropy_weight: float  # of the opacity's binary entropy, in bits, in the grid form (release: 1e-4)
    learning_rate: float  # of the networks (release: 5e-4)
    grid_learning_rate: float  # of the grid's table (release: 5e-3)
    learning_rate_decay: Decay  # see models/learning_rate.py (release: "exponential", without its warm-up)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (release: none)
    batch_size: int  # frames a step (release: 1)
    steps: int  # optimiser steps (release: 250,000)
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it (release: fp16)
    seed: int  # of initial weights and examples
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Examples
    buffer_clips: int  # clips held by each loader process; a second of 512 x 512 takes 66 MB
    frames_per_clip: int  # drawn before one clip of the buffer makes way for another; of each clip in validation
    loader_workers: int  # processes that read, for each GPU; 0 reads in the trainer itself

    def __post_init__(self):
        check_types(self)
        for holds, rule in (
            (self.image_size > 1, "image_size must be above 1"),
            (min(self.position_octaves, self.pose_octaves) >= 0, "octaves must be at least 0"),
            (min(self.frame_width, self.frames) > 0, "frame_width and frames must be above 0"),
            (self.whitening >= 0, "whitening must be at least 0"),
            (self.frames_per_code > 0, "frames_per_code must be above 0"),
            (min(self.levels, self.level_features, self.log2_rows) > 0, "levels, level_features and log2_rows must be above 0"),
            (min(self.deform_hidden, self.color_hidden) > 0, "deform_hidden and color_hidden must be above 0"),
            (1 < self.coarsest <= self.finest, "coarsest must be above 1 and at most finest"),
            (0 <= self.head_seen <= 1, "head_seen must be in [0, 1]"),
            (self.audio_width > 0 and self.audio_std > 0, "audio_width and audio_std must be above 0"),
            (0 < self.near < self.far, "near must be above 0 and below far"),
            (self.coarse_samples > 2 and self.fine_samples > 0, "coarse_samples must be above 2, fine_samples above 0"),
            (self.pixels > 0 and self.batch_size == 1, "pixels must be above 0, and batch_size 1: the pixels are the batch"),
            (0 <= self.lower_half <= 1, "lower_half must be in [0, 1]"),
            (min(self.entropy_weight, self.gradient_clip) >= 0, "entropy_weight and gradient_clip must be at least 0"),
            (min(self.learning_rate, self.grid_learning_rate) > 0, "learning_rate and grid_learning_rate must be above 0"),
            (min(self.buffer_clips, self.frames_per_clip) > 0, "buffer_clips and frames_per_clip must be above 0"),
            (min(self.val_every, self.log_every) > 0, "val_every and log_every must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"geneface has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


MAY = Config(  # one person's minutes, as the release's example of that name: 10,880 + 5,504 parameters and a grid of 1,111,040
    form="grid",
    image_size=512,
    position_octaves=10,
    pose_octaves=4,
    whitening=0.0,
    frame_width=8,
    frames=13_000,
    frames_per_code=1,
    shaded=True,
    deform_hidden=64,
    color_hidden=32,
    levels=16,
    level_features=2,
    coarsest=16,
    finest=2048,
    log2_rows=16,
    head_aware=False,
    head_seen=0.5,
    audio="speech",
    audio_width=29,
    audio_mean=0.0,
    audio_std=1.0,
    near=0.3,
    far=0.9,
    coarse_samples=64,
    fine_samples=128,
    pixels=65_536,
    lower_half=0.0,
    entropy_weight=1e-4,
    learning_rate=5e-4,
    grid_learning_rate=5e-3,
    learning_rate_decay="exponential",
    gradient_clip=0.0,
    batch_size=1,
    steps=250_000,
    precision="32-true",
    seed=0,
    log_every=50,
    val_every=2000,
    buffer_clips=64,
    frames_per_clip=64,
    loader_workers=2,
)

MAY_MLP = replace(MAY, form="mlp", pose_octaves=6, pixels=1600, lower_half=0.95, steps=400_000)

# Half a minute on two cores.
SAMPLE = replace(
    MAY,
    image_size=128,
    color_hidden=64,
    position_octaves=6,
    pose_octaves=0,
    whitening=0.03,
    frames=1000,
    frames_per_code=50,
    shaded=False,
    audio_width=288,
    audio_std=0.53,
    near=0.5,
    far=1.5,
    levels=8,
    finest=128,
    pixels=4096,
    lower_half=0.7,
    learning_rate=4e-3,
    grid_learning_rate=3e-2,
    learning_rate_decay="cosine",
    steps=1600,
    log_every=20,
    val_every=400,
    buffer_clips=16,
    frames_per_clip=16,
    loader_workers=0,
)

PRESETS = {"may": MAY, "may_mlp": MAY_MLP, "sample": SAMPLE}
