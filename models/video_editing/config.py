"""Every number of the system, and the presets of the paper's two models beside one small enough for a laptop."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.diffusion import NoiseSchedule, Prediction
from models.hearing import MEL_BANDS, Audio
from models.learning_rate import Decay
from models.presets import WrongConfig, changed, check_types


@dataclass(frozen=True)
class Config:
    """Sources are sections of the paper, or "release" where only the code has it."""

    # Network
    image_size: int  # pixels, height and width of the frames (§3.1)
    patch: int  # patch x patch pixels become channels before the U-Net, and pixels again after it; 1 is the paper
    channels: tuple[int, ...]  # of each level, the resolution halving from one to the next (table 1); multiples of 32
    res_blocks: int  # residual blocks of each level on the way down, one more on the way up (table 1)
    attention_levels: tuple[int, ...]  # levels with self-attention, 0 the finest; the middle always has it (table 1)
    head_channels: int  # of each attention head (release; table 1 has 32 throughout)
    dropout: float  # before the second convolution of a residual block (release; table 1 has 0.2 throughout)
    from_identity: bool  # the clean frame is the identity frame plus the output, if that predicts "x0" (release: no)
    noise_level_scale: float  # multiplies gamma before the sinusoid, which at 1 (release) hardly changes with gamma
    audio: Audio  # column of the shards that the frames are painted to (release: mel, in dB)
    audio_width: int  # numbers in a row of the column
    audio_mean: float  # taken off the rows; 0 is the release, which feeds raw dB
    audio_std: float  # divides what remains; 1 is the release
    speech_encoder: str  # which of models/speech made the speech column, so that bare sound can be heard as it was

    # Diffusion
    schedule: Literal["cosine", "linear"]  # of the noise (table 1)
    train_timesteps: int  # steps of the schedule in training (table 1)
    linear_start: float  # beta of the first training step, used if the schedule is linear (table 1)
    linear_end: float  # beta of the last
    prediction: Prediction  # what the network predicts: "epsilon", the noise (eq. 5), or "x0", the clean frame

    # Training
    batch_size: int  # frames a step on each GPU (table 1)
    learning_rate: float  # of Adam, constant (table 1)
    weight_decay: float  # of Adam (release: 0)
    learning_rate_decay: Decay  # see models/learning_rate.py (release: none)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (release)
    steps: int  # optimiser steps: epochs of table 1 x frames / (batch size x GPUs)
    ema_decay: float  # of the moving average of the weights, each step (release)
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it (release: 32 bit)
    seed: int  # of initial weights, examples and noise
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Examples
    buffer_clips: int  # decoded clips held by each loader process, from which frames are drawn; a clip takes 4 MB
    frames_per_clip: int  # drawn before one clip of the buffer makes way for another; of each clip in validation
    identity: Literal["first", "random"]  # frame of the clip that shows who it is; generation has the first (release: first)
    previous_dropout: float  # probability that training hides the previous frame behind the identity frame (release: 0)
    previous_perturbation: float  # how far training warps and tints the previous frame, see examples.perturbed (release: 0)
    audio_dropout: float  # probability that training hears silence instead (release: 0)
    mirror: float  # probability that training mirrors an example (release: 0)
    loader_workers: int  # processes that decode, for each GPU; 0 decodes in the trainer itself

    def __post_init__(self):
        check_types(self)
        levels = len(self.channels)
        coarsest = self.patch * 2 ** (levels - 1)
        attending = {*self.attention_levels, levels - 1}
        heads = (channels % self.head_channels for level, channels in enumerate(self.channels) if level in attending)
        for holds, rule in (
            (self.image_size % coarsest == 0, f"image_size must be a multiple of {coarsest} for these levels"),
            (not any(channels % 32 for channels in self.channels), "channels must be multiples of GroupNorm's 32"),
            (set(self.attention_levels) <= set(range(levels)), "attention_levels must be levels"),
            (not any(heads), "channels of levels with attention, and of the last, must be multiples of head_channels"),
            (0 <= self.dropout < 1, "dropout must be in [0, 1)"),
            (not self.from_identity or self.prediction == "x0", 'from_identity needs prediction "x0"'),
            (
                all(0 <= probability <= 1 for probability in (self.previous_dropout, self.audio_dropout, self.mirror)),
                "previous_dropout, audio_dropout and mirror must be in [0, 1]",
            ),
            (self.previous_perturbation >= 0, "previous_perturbation must be at least 0"),
            (
                self.previous_perturbation == 0 or self.previous_dropout < 1,
                "previous_perturbation needs a previous frame to perturb: set previous_dropout below 1",
            ),
            (self.audio != "mel" or self.audio_width == MEL_BANDS, f"audio_width of mel must be {MEL_BANDS}"),
            (self.audio != "speech" or self.speech_encoder != "", "the speech column needs speech_encoder, the one that made it"),
            (self.audio_width > 0, "audio_width must be above 0"),
            (0 <= self.ema_decay < 1, "ema_decay must be in [0, 1)"),
            (self.audio_std > 0, "audio_std must be above 0"),
            (min(self.buffer_clips, self.frames_per_clip) > 0, "buffer_clips and frames_per_clip must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
            (self.train_timesteps > 1, "train_timesteps must be at least 2"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @property
    def noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule(self.schedule, self.train_timesteps, self.linear_start, self.linear_end)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"video_editing has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


MULTI_SPEAKER = Config(  # CREMA-D: 13.7 M parameters
    image_size=128,
    patch=1,
    channels=(64, 128, 192),
    res_blocks=2,
    attention_levels=(2,),
    head_channels=64,
    dropout=0.1,
    from_identity=False,
    noise_level_scale=1.0,
    audio="mel",
    audio_width=MEL_BANDS,
    audio_mean=0.0,
    audio_std=1.0,
    speech_encoder="",
    schedule="cosine",
    train_timesteps=1000,
    linear_start=1e-6,
    linear_end=0.01,
    prediction="epsilon",
    batch_size=40,
    learning_rate=5e-5,
    weight_decay=0.0,
    learning_rate_decay="none",
    gradient_clip=0.0,
    steps=1_984_500,  # 735 epochs of 432,000 frames, on 4 GPUs
    ema_decay=0.9999,
    precision="32-true",
    seed=0,
    log_every=50,
    val_every=5000,
    buffer_clips=256,
    frames_per_clip=8,
    identity="first",
    previous_dropout=0.0,
    previous_perturbation=0.0,
    audio_dropout=0.0,
    mirror=0.0,
    loader_workers=8,
)

SINGLE_SPEAKER = replace(  # GRID s1: 66.7 M parameters
    MULTI_SPEAKER,
    channels=(64, 128, 256, 512),
    attention_levels=(),
    head_channels=32,
    dropout=0.2,
    schedule="linear",
    train_timesteps=2000,
    batch_size=10,
    steps=14_740_800,  # 2000 epochs of 73,704 frames, on one GPU (the paper names no number of GPUs)
)

# Under five minutes on two cores: 3.8 M parameters. Where it departs from the paper it is for want of data: half a minute of
# speech teaches a network to copy the frame before, error by error, unless that frame is hidden.
SAMPLE = replace(
    MULTI_SPEAKER,
    patch=4,
    channels=(64, 64, 96),
    attention_levels=(),
    res_blocks=1,
    head_channels=32,
    dropout=0.0,
    from_identity=True,
    noise_level_scale=1000.0,
    audio_mean=-50.0,
    audio_std=20.0,
    prediction="x0",
    batch_size=16,
    learning_rate=1e-3,
    learning_rate_decay="cosine",
    gradient_clip=1.0,
    steps=1200,
    ema_decay=0.99,
    precision="bf16-mixed",
    log_every=20,
    val_every=200,
    buffer_clips=64,
    identity="random",
    previous_dropout=1.0,
    mirror=0.5,
    loader_workers=0,
)

PRESETS = {"multi_speaker": MULTI_SPEAKER, "single_speaker": SINGLE_SPEAKER, "sample": SAMPLE}
