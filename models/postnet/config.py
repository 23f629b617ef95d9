"""Every number of PostNet, of its training and of the guards at inference, and its presets.

What it hears, it hears through the generator below it: see models/motion/config.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.learning_rate import Decay
from models.postnet.guards import Blink, Guards
from models.presets import WrongConfig, changed, check_types


@dataclass(frozen=True)
class Config:
    """Sources are the release, unless said otherwise."""

    # Network
    channels: tuple[int, ...]  # of PostNet's first block of convolutions, which are those of its last, and of its second
    discriminator_channels: tuple[int, ...]  # of the hidden layers
    # What lies beyond a clip's end in a batch: "masked" is neither seen by convolutions nor counted by BatchNorm, so that a
    # clip's motion does not depend on the clips beside it; "release" is both.
    padding: Literal["masked", "release"]
    zero_start: bool  # the last convolution begins as zero, and so training with the generator's own motion (release: not)
    frames: int  # of the person's training motion, which the checkpoint holds for the guards; training counts them

    # Losses
    adversarial_weight: float  # of the least squares by which frames are told from the person's
    sync_weight: float  # of the sync expert's
    paired_weight: float  # of the mean squared error where the true motion is known, in square centimetres
    sync_clips: int  # clips of five frames that the sync expert sees of a batch, at least
    temperature: float  # standard deviation of what the generator draws in training, times that of its prior

    # Judgement (ours: the release has the best step chosen by eye)
    val_temperature: float  # likewise in validation: that which the person will speak with (++: 0.2)
    collapse: float  # share of the person's own movement of the mouth, below which PostNet's is told to have collapsed
    patience: int  # validations without a better one that end training; 0: never

    # Training
    batch_size: int  # voices a step on each GPU (release: as many as make 60,000 rows of sound, at most 512)
    person_clips: int  # of the person's, paired, a step (release: all of the training sequence at once)
    crop_frames: int  # of one clip, at most, contiguous, drawn afresh each time; 0 is all of it
    learning_rate: float  # of PostNet's RMSprop; meant: 1e-4, which the schedule of the generator of motion then overwrites
    learning_rate_decay: Decay  # of PostNet, see models/learning_rate.py; "none" with 1e-4 is the release as it was meant
    discriminator_learning_rate: float  # of the discriminator's RMSprop, halved every 40,000 steps
    gradient_clip: float  # largest norm of the gradient of each of the two networks; 0 is no limit
    steps: int  # optimiser steps, at most
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it
    seed: int  # of initial weights, examples and noise
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Guards, of which generate.speak may be given others: see guards.py
    lle_share: float  # of a frame, that its reconstruction from the person's frames replaces; 0 is none (++: 0.2)
    lle_neighbours: int  # of the person's frames, which it is reconstructed from
    clamp_std: float  # standard deviations of the person's motion that a landmark may be off its mean; 0 is any (2 to 3)
    upper_share: float  # of what brows, nose and eyes are off the person's mean; 0 leaves nothing but blinks (release: 1)
    smoothing: float  # share of the frame before that a frame keeps; 0 is none
    blink: Blink  # of the eyes: see guards.py

    # Examples
    buffer_clips: int  # clips held by each loader process, of the voices and of the person each
    loader_workers: int  # processes that read, for each GPU; 0 reads in the trainer itself

    def __post_init__(self):
        check_types(self)
        for holds, rule in (
            (len(self.channels) == 2 and min(self.channels) > 0, "channels must be two, above 0"),
            (self.discriminator_channels and min(self.discriminator_channels) > 0, "discriminator_channels must be above 0"),
            (self.frames >= 0, "frames must be at least 0"),
            (
                min(self.adversarial_weight, self.sync_weight, self.paired_weight, self.temperature, self.val_temperature) >= 0,
                "weights and temperatures must be at least 0",
            ),
            (
                min(self.batch_size, self.person_clips, self.sync_clips, self.buffer_clips) > 0,
                "batch_size, person_clips, sync_clips and buffer_clips must be above 0",
            ),
            (self.crop_frames == 0 or self.crop_frames >= 8, "crop_frames must be 0 or at least 8"),
            (min(self.patience, self.gradient_clip) >= 0, "patience and gradient_clip must be at least 0"),
            (0 <= self.collapse < 1, "collapse must be in [0, 1)"),
            (min(self.val_every, self.log_every) > 0, "val_every and log_every must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
        ):
            if not holds:
                raise WrongConfig(rule)
        _ = self.guards  # has rules of its own

    @property
    def guards(self) -> Guards:
        return Guards(self.lle_share, self.lle_neighbours, self.clamp_std, self.upper_share, self.smoothing, self.blink)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"postnet has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


MAY = Config(  # the release's example person: 796,620 parameters, and 158,080 of the discriminator
    channels=(128, 256),
    discriminator_channels=(128, 256, 256, 128),
    padding="masked",
    zero_start=False,
    frames=0,
    adversarial_weight=0.85,
    sync_weight=0.10,
    paired_weight=0.05,
    sync_clips=1024,
    temperature=1.0,
    val_temperature=0.2,
    collapse=0.1,
    patience=5,
    batch_size=128,
    person_clips=32,
    crop_frames=0,
    learning_rate=5e-4,
    learning_rate_decay="exponential",
    discriminator_learning_rate=1e-4,
    gradient_clip=1.0,
    steps=20_000,
    precision="32-true",
    seed=9999,
    log_every=50,
    val_every=1000,
    lle_share=0.0,
    lle_neighbours=10,
    clamp_std=3.0,
    upper_share=1.0,
    smoothing=0.2,
    blink="none",
    buffer_clips=1024,
    loader_workers=2,
)

# Under a minute on two cores, for five seconds of a person. The discriminator needs thousands of steps before it can lead: here
# it is the paired error that does, and the sync expert that keeps the mouth moving.
SAMPLE = replace(
    MAY,
    channels=(64, 128),
    zero_start=True,
    adversarial_weight=0.3,
    sync_weight=0.3,
    paired_weight=1.0,
    sync_clips=64,
    patience=0,
    batch_size=8,
    person_clips=4,
    crop_frames=64,
    learning_rate=1e-3,
    learning_rate_decay="cosine",
    steps=200,
    seed=0,
    log_every=10,
    val_every=50,
    upper_share=0.2,  # seconds of speech teach it little of brows but noise
    buffer_clips=64,
    loader_workers=0,
)

PRESETS = {"may": MAY, "sample": SAMPLE}
