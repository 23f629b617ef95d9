"""Every number of the autoencoder, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.learning_rate import Decay
from models.presets import WrongConfig, changed, check_types


@dataclass(frozen=True)
class Config:
    """ "LDM": CompVis/latent-diffusion, models/first_stage_models/vq-f4, of which DiffTalk takes the first stage."""

    # Network
    patch: int  # patch x patch pixels become channels before the encoder, and pixels again after the decoder; 1 is LDM
    channels: tuple[int, ...]  # of each level, the resolution halving from one to the next (LDM: 128 x 1, 2, 4); multiples of 32
    res_blocks: int  # residual blocks of each level of the encoder, one more in the decoder (LDM)
    latent_channels: int  # of the latent image, and numbers in a code (LDM: 3)
    codes: int  # in the codebook (LDM: 8192)

    # Loss
    codebook_weight: float  # of the distance between latents and their codes (LDM: 1)
    codebook_start: int  # step at which latents begin to be quantised, by codes drawn from them; 0 is LDM
    perceptual_weight: float  # of LPIPS (LDM: 1); 0 needs no backbone
    backbone: str  # file of VGG-16's weights, for LPIPS: vgg16-397923af.pth, as torchvision has it
    discriminator_weight: float  # of the patch discriminator, times the ratio of the gradients (LDM: 0.75); 0 trains none
    discriminator_start: int  # step at which the discriminator begins to count (LDM: 0)

    # Training
    crop: int  # pixels, height and width of the squares cut from the frames; a smaller one trains faster
    batch_size: int  # squares a step on each GPU (LDM: 8)
    learning_rate: float  # of Adam (LDM: 4.5e-6 x batch size x GPUs)
    learning_rate_decay: Decay  # see models/learning_rate.py (LDM: none)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (LDM)
    steps: int  # optimiser steps
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it (LDM: 32 bit)
    seed: int  # of initial weights and examples
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Examples
    buffer_clips: int  # decoded clips held by each loader process, from which frames are drawn
    frames_per_clip: int  # drawn before one clip of the buffer makes way for another; of each clip in validation
    mirror: float  # probability that training mirrors a square (LDM: 0.5)
    loader_workers: int  # processes that decode, for each GPU; 0 decodes in the trainer itself

    def __post_init__(self):
        check_types(self)
        for holds, rule in (
            (
                self.channels and not any(channels % 32 for channels in self.channels),
                "channels must be multiples of GroupNorm's 32",
            ),
            (min(self.patch, self.res_blocks, self.latent_channels, self.codes) > 0, "sizes must be above 0"),
            (self.crop % self.factor == 0 and self.crop > 0, f"crop must be a multiple of {self.factor}"),
            (0 <= self.mirror <= 1, "mirror must be in [0, 1]"),
            (self.perceptual_weight == 0 or self.backbone, "perceptual_weight needs backbone, or set it to 0"),
            (self.discriminator_weight == 0 or self.crop >= 24, "the discriminator needs a crop of 24 pixels at least"),
            (self.codebook_start < self.steps, "codebook_start must be below steps"),
            (min(self.buffer_clips, self.frames_per_clip) > 0, "buffer_clips and frames_per_clip must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @property
    def factor(self) -> int:
        """Pixels of a latent pixel, in height and in width."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"autoencoder has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


PAPER_256 = Config(  # LDM's vq-f4: 55.3 M parameters, 64 x 64 x 3 latents of 256²
    patch=1,
    channels=(128, 256, 512),
    res_blocks=2,
    latent_channels=3,
    codes=8192,
    codebook_weight=1.0,
    codebook_start=0,
    perceptual_weight=1.0,
    backbone="vgg16-397923af.pth",
    discriminator_weight=0.75,
    discriminator_start=0,
    crop=256,
    batch_size=8,
    learning_rate=3.6e-5,
    learning_rate_decay="none",
    gradient_clip=0.0,
    steps=200_000,  # neither LDM nor DiffTalk says
    precision="32-true",
    seed=0,
    log_every=50,
    val_every=5000,
    buffer_clips=64,
    frames_per_clip=8,
    mirror=0.5,
    loader_workers=8,
)

# The same latents of 512². DiffTalk's own is unpublished; LDM's of this factor have other latents. The widths are LDM's vq-f8.
PAPER_512 = replace(PAPER_256, channels=(128, 256, 256, 512), crop=512)

# Under two minutes on two cores: 0.6 M parameters, which see a quarter of a frame at a time. Quantising begins when there is
# something to quantise, and without losses on top: 29 dB on held-out clips of the sample corpus.
SAMPLE = replace(
    PAPER_256,
    patch=4,
    channels=(64,),
    res_blocks=1,
    codes=2048,
    codebook_start=300,
    perceptual_weight=0.0,
    backbone="",
    discriminator_weight=0.0,
    crop=64,
    learning_rate=3e-3,
    learning_rate_decay="cosine",
    gradient_clip=1.0,
    steps=1000,
    log_every=20,
    val_every=500,
    loader_workers=0,
)

PRESETS = {"paper_256": PAPER_256, "paper_512": PAPER_512, "sample": SAMPLE}
