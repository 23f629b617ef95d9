"""Every number of the sync expert, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.hearing import Audio
from models.presets import WrongConfig, changed, check_types

Negatives = Literal["designed", "release"]


@dataclass(frozen=True)
class Config:
    """Sources are "release", the authors' code and configs, or "ours" for what they have not."""

    # Network
    channels: tuple[int, ...]  # of the blocks' three levels, in both encoders; the last is the width of the embeddings (release)
    mouth_channels: int  # of the mouth's first block (release)
    res_blocks: int  # residual blocks of each level (release)
    audio: Audio  # column of the shards that is heard
    audio_width: int  # numbers in a row of the column (release: 1024)
    audio_mean: float  # taken off the rows (release: 0)
    audio_std: float  # divides what remains (release: 1)
    speech_encoder: str  # which of models/speech made the speech column, so that bare sound can be heard as it was

    # Training
    # Where sound that does not belong to a mouth comes from. "designed": a quarter from another utterance, the rest from another
    # time of the same. "release": its code then reads the quarter from the same utterance too, at the time meant for the other.
    negatives: Negatives
    audio_noise: float  # standard deviation of what training adds to the sound's rows, in units of audio_std; 0 is the release
    mouth_offset: float  # cm, likewise of a mouth's numbers, the same in its 5 frames, as if of another; 0 is the release
    batch_size: int  # pairs of a mouth and a sound a step on each GPU (release)
    learning_rate: float  # of Adam; it falls to 0 at the last step along half a cosine wave (release)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (release)
    steps: int  # optimiser steps (release)
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it (release: 32 bit)
    seed: int  # of initial weights, examples and noise (release: 9999)
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from (release)

    # Examples
    buffer_clips: int  # utterances held by each loader process, from which pairs are drawn; 4 s of HuBERT-large take 0.8 MB
    pairs_per_clip: int  # drawn before one utterance of the buffer makes way for another; of each utterance in validation
    loader_workers: int  # processes that read, for each GPU; 0 reads in the trainer itself

    def __post_init__(self):
        check_types(self)
        for holds, rule in (
            (len(self.channels) == 3 and min(self.channels) > 0, "channels must be three, above 0"),
            (min(self.mouth_channels, self.audio_width) > 0, "mouth_channels and audio_width must be above 0"),
            (self.res_blocks >= 0, "res_blocks must be at least 0"),
            (self.audio != "speech" or self.speech_encoder != "", "the speech column needs speech_encoder, the one that made it"),
            (self.audio_std > 0, "audio_std must be above 0"),
            (min(self.audio_noise, self.mouth_offset) >= 0, "noise must be at least 0"),
            (self.gradient_clip >= 0, "gradient_clip must be at least 0"),
            (self.batch_size > 1, "batch_size must be at least 2, for the norms' moments"),
            (min(self.buffer_clips, self.pairs_per_clip) > 0, "buffer_clips and pairs_per_clip must be above 0"),
            (min(self.val_every, self.log_every) > 0, "val_every and log_every must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"syncnet has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


LRS3 = Config(  # 9.3 M parameters
    channels=(128, 256, 512),
    mouth_channels=96,
    res_blocks=2,
    audio="speech",
    audio_width=1024,
    audio_mean=0.0,
    audio_std=1.0,
    speech_encoder="hubert-large",
    negatives="designed",
    audio_noise=0.0,
    mouth_offset=0.0,
    batch_size=1024,
    learning_rate=5e-4,
    gradient_clip=1.0,
    steps=40_000,
    precision="32-true",
    seed=9999,
    log_every=50,
    val_every=2000,
    buffer_clips=512,
    pairs_per_clip=16,
    loader_workers=4,
)

# Eighteen seconds of two speakers: as small as they are short, and stopped before it knows them by heart. On held-out clips of
# the sample corpus the cosine of a mouth and its own sound is the larger one in 56 to 65 % of comparisons with other pairs (two
# seeds; a ridge regression comes to 60 to 73 %), but 0.4, so that the sync loss of real motion is 0.9, where the learned clips'
# is 0.3.
SAMPLE = replace(
    LRS3,
    channels=(64, 64, 128),
    mouth_channels=32,
    res_blocks=0,
    audio_width=288,
    audio_std=0.53,  # of the column over the corpus
    speech_encoder="moonshine-tiny",
    audio_noise=0.2,
    mouth_offset=0.1,
    batch_size=128,
    learning_rate=3e-4,
    steps=160,
    seed=0,
    log_every=10,
    val_every=40,
    buffer_clips=64,
    pairs_per_clip=256,
    loader_workers=0,
)

PRESETS = {"lrs3": LRS3, "sample": SAMPLE}
