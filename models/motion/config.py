"""Every number of the generator of motion, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.hearing import Audio
from models.learning_rate import Decay
from models.presets import WrongConfig, changed, check_types

SYNCNET = "syncnet"  # the sync expert's checkpoint: among what a training is given, and the folder of it in the checkpoint

# What latents are drawn from: a flow that is told the sound (the paper's), a plain Gaussian, or nothing at all: no encoder and
# latents of 0, so that the mean of all motions is learnt, by mean squared error. The last two are what the paper compares with.
Prior = Literal["flow", "gaussian", "none"]


@dataclass(frozen=True)
class Config:
    """Sources are "release", its configs and code, or "ours" for what it has not."""

    # Sound
    audio: Audio  # column of the shards that moves the face (release: the last layer of HuBERT-large)
    audio_width: int  # numbers in a row of the column (release: 1024)
    audio_mean: float  # taken off the rows (release: 0)
    audio_std: float  # divides what remains (release: 1)
    speech_encoder: str  # which of models/speech made the speech column, so that bare sound can be heard as it was

    # Network
    condition_channels: int  # of what is heard, as all parts of the network are told it (release: 64)
    latent_channels: int  # of each latent, one for four frames (release: 16)
    channels: int  # inside encoder and decoder (release: 256)
    kernel: int  # frames, or latents, that a layer of theirs sees (release: 5)
    encoder_layers: int  # of the encoder's WaveNet (release: 8)
    decoder_layers: int  # of the decoder's (release: 4)
    prior: Prior  # see above (release: flow)
    flow_steps: int  # couplings, each followed by reversing the channels (release: 4)
    flow_channels: int  # inside a coupling (release: 64)
    flow_kernel: int  # latents that a layer of a coupling sees (release: 3)
    flow_layers: int  # of a coupling's WaveNet (release: 4)
    dilation_rate: int  # layer i of each WaveNet leaves out dilation_rate^i - 1 frames; 1 is the release, the paper says dilated

    # Losses, beside the mean squared error, in cm²
    continuity_weight: float  # of the error of the differences between frames (release: 3)
    kl_weight: float  # of the divergence of the encoder's latents from the prior, in nats (release: 0.4 for LRS3)
    sync_weight: float  # of the sync expert's loss (release: 0.01); 0 asks it in validation alone
    sync_threshold: float  # the expert's loss in a validation at or below which it begins to count, for good (release: 0.75)
    sync_clips: int  # stretches of 5 frames that the expert is asked about in a step, at least (release: 1024)

    # Training
    batch_size: int  # utterances a step on each GPU (release: as many as have 60,000 rows of audio together, of like lengths)
    learning_rate: float  # of Adam (release)
    learning_rate_decay: Decay  # see models/learning_rate.py (release: exponential)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (release)
    steps: int  # optimiser steps (release)
    audio_noise: float  # standard deviation of what training adds to the sound's rows, after audio_std; 0 is the release
    crop_frames: int  # training sees a random stretch of so many frames of a longer utterance; 0: whole ones (release)
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it (release: 32 bit)
    seed: int  # of initial weights, examples and noise
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Examples
    buffer_clips: int  # clips held by each loader process, from which batches are drawn; 2 MB for ten seconds of HuBERT-large
    loader_workers: int  # processes that read, for each GPU; 0 reads in the trainer itself

    def __post_init__(self):
        check_types(self)
        sizes = self.audio_width, self.condition_channels, self.channels, self.flow_channels, self.dilation_rate, self.sync_clips
        layers = self.encoder_layers, self.decoder_layers, self.flow_layers, self.flow_steps
        weights = self.continuity_weight, self.kl_weight, self.sync_weight, self.audio_noise
        for holds, rule in (
            (self.audio != "speech" or self.speech_encoder != "", "the speech column needs speech_encoder, the one that made it"),
            (self.audio_std > 0, "audio_std must be above 0"),
            (min(sizes) > 0, "widths, dilation_rate and sync_clips must be above 0"),
            (min(layers) > 0, "layers and flow_steps must be above 0"),
            (self.latent_channels > 0 and self.latent_channels % 2 == 0, "latent_channels must be even: a coupling halves them"),
            (self.kernel % 2 == self.flow_kernel % 2 == 1, "kernel and flow_kernel must be odd"),
            (min(weights) >= 0, "no weight may be below 0, nor audio_noise"),
            (self.crop_frames == 0 or self.crop_frames >= 5, "crop_frames must be 0 or at least the sync expert's 5"),
            (min(self.batch_size, self.buffer_clips) > 0, "batch_size and buffer_clips must be above 0"),
            (min(self.val_every, self.log_every) > 0, "val_every and log_every must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"motion has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


LRS3 = Config(  # 11,127,500 parameters
    audio="speech",
    audio_width=1024,
    audio_mean=0.0,
    audio_std=1.0,
    speech_encoder="hubert-large",
    condition_channels=64,
    latent_channels=16,
    channels=256,
    kernel=5,
    encoder_layers=8,
    decoder_layers=4,
    prior="flow",
    flow_steps=4,
    flow_channels=64,
    flow_kernel=3,
    flow_layers=4,
    dilation_rate=1,
    continuity_weight=3.0,
    kl_weight=0.4,
    sync_weight=0.01,
    sync_threshold=0.75,
    sync_clips=1024,
    batch_size=120,  # with crop_frames at most the release's 60,000 rows of audio
    learning_rate=5e-4,
    learning_rate_decay="exponential",
    gradient_clip=1.0,
    steps=40_000,
    audio_noise=0.0,
    crop_frames=250,
    precision="32-true",
    seed=9999,
    log_every=50,
    val_every=2000,
    buffer_clips=512,
    loader_workers=4,
)

# Under a minute on two cores, for eighteen seconds of two speakers. Mouths move by a millimetre or two, and against that the
# published weight of the divergence, made for thousands of faces, would leave nothing in the latents: with 1e-3 it is so already
# where there is one speaker alone.
SAMPLE = replace(
    LRS3,
    audio_width=288,
    audio_std=0.53,  # of the column over the corpus
    speech_encoder="moonshine-tiny",
    condition_channels=32,
    latent_channels=8,
    channels=64,
    encoder_layers=4,
    decoder_layers=3,
    flow_channels=32,
    flow_layers=2,
    kl_weight=2e-4,
    sync_threshold=1.1,  # what the sample's expert, which has heard 18 seconds, says of held-out motion
    sync_clips=64,
    batch_size=8,
    learning_rate=2e-3,
    learning_rate_decay="cosine",
    steps=600,
    audio_noise=0.5,
    crop_frames=48,
    seed=0,
    log_every=20,
    val_every=200,
    buffer_clips=64,
    loader_workers=0,
)

PRESETS = {"lrs3": LRS3, "sample": SAMPLE}
