"""Every number of the denoiser, and its presets. Those of the autoencoder below it: models/autoencoder/config.py."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.difftalk.masks import Shape
from models.diffusion import NoiseSchedule, Prediction
from models.hearing import Audio
from models.learning_rate import Decay
from models.presets import WrongConfig, changed, check_types


@dataclass(frozen=True)
class Config:
    """Sources are sections of the paper, or "release" where only the code has it."""

    # Network
    image_size: int  # pixels, height and width of the frames (§4.1)
    latent_size: int  # of the autoencoder's latents, height and width (§3.1)
    latent_channels: int  # of the autoencoder (release)
    patch: int  # patch x patch latent pixels become channels before the U-Net, and latent pixels again after it; 1 is the release
    channels: tuple[int, ...]  # of each level, the resolution halving from one to the next; multiples of 32 (release)
    res_blocks: int  # residual blocks of each level on the way down, one more on the way up (release)
    attention_levels: tuple[int, ...]  # levels with attention, 0 the finest; the middle always has it (release)
    head_channels: int  # of each attention head (release)
    audio: Audio  # column of the shards that the frames are painted to (release: letters that DeepSpeech hears)
    audio_width: int  # numbers in a row of the column (release: 29)
    audio_mean: float  # taken off the rows (release: 0)
    audio_std: float  # divides what remains (release: 1)
    speech_encoder: str  # which of models/speech made the speech column, so that bare sound can be heard as it was
    landmark_mean: float  # pixels taken off the landmarks' coordinates (release: 0)
    landmark_std: float  # pixels that divide what remains (release: 1)
    mask: Shape  # what of a frame is hidden and painted, in training and generation alike; see masks.py

    # Diffusion
    train_timesteps: int  # steps of the schedule in training (release: 1000; the paper says 200)
    linear_start: float  # beta of the first training step; its root rises linearly (release)
    linear_end: float  # beta of the last
    prediction: Prediction  # what the network predicts: "epsilon", the noise (eq. 3), or "x0", the clean latents
    # What sampling leaves as it is outside of the mask: nothing, or the real latents, noised (release). An encoder sees far, so
    # those tell of the real mouth. In the picture, what is outside is real either way.
    keeps: Literal["nothing", "real"]

    # Training
    batch_size: int  # frames a step on each GPU (release)
    learning_rate: float  # of AdamW (release: 1e-6 x batch size x 8 GPUs)
    weight_decay: float  # of AdamW (release: torch's own)
    learning_rate_decay: Decay  # see models/learning_rate.py (release: none)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (release: 0.1)
    steps: int  # optimiser steps; unpublished
    ema_decay: float  # of the moving average of the weights; less in the first steps (release)
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it (release: 32 bit)
    seed: int  # of initial weights, examples and noise
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Examples
    buffer_clips: int  # clips held by each loader process, from which frames are drawn; a minute of 64 x 64 latents takes 150 MB
    frames_per_clip: int  # drawn before one clip of the buffer makes way for another; of each clip in validation
    reference_distance: int  # frames between an example and its reference, at least, or the clip's farthest (§3.2: 60)
    loader_workers: int  # processes that read, for each GPU; 0 reads in the trainer itself

    def __post_init__(self):
        check_types(self)
        levels = len(self.channels)
        coarsest = self.patch * 2 ** (levels - 1)
        attending = {*self.attention_levels, levels - 1}
        heads = (channels % self.head_channels for level, channels in enumerate(self.channels) if level in attending)
        for holds, rule in (
            (self.latent_size % coarsest == 0, f"latent_size must be a multiple of {coarsest} for these levels"),
            (self.image_size % self.latent_size == 0, "image_size must be a multiple of latent_size"),
            (not any(channels % 32 for channels in self.channels), "channels must be multiples of GroupNorm's 32"),
            (set(self.attention_levels) <= set(range(levels)), "attention_levels must be levels"),
            (not any(heads), "channels of levels with attention, and of the last, must be multiples of head_channels"),
            (self.audio != "speech" or self.speech_encoder != "", "the speech column needs speech_encoder, the one that made it"),
            (min(self.audio_width, self.patch, self.res_blocks) > 0, "audio_width, patch and res_blocks must be above 0"),
            (min(self.audio_std, self.landmark_std) > 0, "audio_std and landmark_std must be above 0"),
            (0 <= self.ema_decay < 1, "ema_decay must be in [0, 1)"),
            (min(self.buffer_clips, self.frames_per_clip) > 0, "buffer_clips and frames_per_clip must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
            (self.reference_distance >= 0, "reference_distance must be at least 0"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @property
    def noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule("scaled_linear", self.train_timesteps, self.linear_start, self.linear_end)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"difftalk has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


PAPER_256 = Config(  # HDTF: 530.2 M parameters, and 0.1 M of the three that encode conditions
    image_size=256,
    latent_size=64,
    latent_channels=3,
    patch=1,
    channels=(256, 512, 768, 1024),
    res_blocks=2,
    attention_levels=(1, 2, 3),
    head_channels=32,
    audio="speech",
    audio_width=288,
    audio_mean=0.0,
    audio_std=1.0,
    speech_encoder="moonshine-tiny",
    landmark_mean=0.0,
    landmark_std=1.0,
    mask="nose_tip",
    train_timesteps=1000,
    linear_start=0.0015,
    linear_end=0.0195,
    prediction="epsilon",
    keeps="nothing",
    batch_size=8,
    learning_rate=6.4e-5,
    weight_decay=0.01,
    learning_rate_decay="none",
    gradient_clip=0.1,
    steps=65_000,  # what 15 hours of 8 GPUs come to (§4.1), by estimate
    ema_decay=0.9999,
    precision="bf16-mixed",
    seed=0,
    log_every=50,
    val_every=2500,
    buffer_clips=128,
    frames_per_clip=32,
    reference_distance=60,
    loader_workers=4,
)

PAPER_512 = replace(PAPER_256, image_size=512)  # with an autoencoder of factor 8 (§4.1)

# What the authors trained, to convert such weights: DeepSpeech, which they heard with, no longer runs.
RELEASE = replace(PAPER_256, audio_width=29, speech_encoder="deepspeech")

# Under two minutes on two cores: 2.6 M parameters.
SAMPLE = replace(
    PAPER_256,
    image_size=128,
    latent_size=32,
    patch=2,
    channels=(64, 96),
    res_blocks=1,
    attention_levels=(1,),
    landmark_mean=64.0,
    landmark_std=32.0,
    mask="box",
    prediction="x0",
    batch_size=8,
    learning_rate=1e-3,
    learning_rate_decay="cosine",
    gradient_clip=1.0,
    steps=800,
    ema_decay=0.99,
    precision="32-true",
    log_every=20,
    val_every=400,
    reference_distance=12,
    loader_workers=0,
)

PRESETS = {"paper_256": PAPER_256, "paper_512": PAPER_512, "release": RELEASE, "sample": SAMPLE}
