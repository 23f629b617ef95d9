"""Every number of the system, and presets: the release's two corpora, any video's mesh, and one small enough for a laptop."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.diffusion import NoiseSchedule
from models.learning_rate import Decay
from models.presets import WrongConfig, changed, check_types

Audio = Literal["wav2vec2-base", "hubert-base", "speech", "mel"]
ENCODERS = ("wav2vec2-base", "hubert-base")  # those that hear the sound itself; the others read a column of the shards
ENCODER_WIDTH = 768


@dataclass(frozen=True)
class Config:
    """Sources are "release", its configs and code, or "ours" for what it has not; the paper's own text gives no numbers."""

    # Motion
    vertices: int  # of the mesh: 5023 in FLAME, 23370 in BIWI, 478 in MediaPipe's (release)
    fps: int  # frames of motion a second (release: 30 VOCASET, 25 BIWI)
    speakers: tuple[str, ...]  # of the training set, in the order of their styles; none: everybody has one style (release)
    normalise: bool  # less the training set's mean motion, divided by its size, so that noise and motion compare (ours)

    # Audio
    audio: Audio  # a pretrained encoder, trained on but for its convolutions (release); or a column, as it is (ours)
    pretrained: str  # folder of the weights that the encoder starts training from, as the hub has them; "" asks the hub
    speech_encoder: str  # which of models/speech made the speech column, so that bare sound can be heard as it was
    audio_width: int  # numbers in a row of the column; 768 for the encoders
    audio_mean: float  # taken off the column
    audio_std: float  # divides what remains
    audio_context: int  # frames before and after whose sound a frame hears beside its own; 0 is the release
    audio_noise: float  # standard deviation of what training adds to the sound's features; 0 is the release

    # Network
    channels: int  # C: width of everything inside (release)
    feedforward: int  # F: width inside the feed-forward layers (release)
    layers: int  # decoder blocks, each with style and step tokens of its own (release)
    heads: int  # of each attention (release)
    dropout: float  # after position, attention and feed-forward, and of attention weights (release)
    step_width: int  # of the diffusion step's sinusoid: the encoders' width, whatever the width of the audio (release)
    period: int  # frames after which positions repeat and attention fades by one more slope: the frame rate (release)

    # Diffusion
    train_timesteps: int  # steps of the schedule (release)
    beta_start: float  # of the first step; between the two, the root of beta is linear (release)
    beta_end: float  # of the last

    # Generation
    smoothing: bool  # each frame but first and last becomes the mean of itself and its neighbours (release: VOCASET)
    guidance: float  # w in x0 + w (x0 − x0 of silence); 0 is none (release)

    # Training
    batch_size: int  # clips a step on each GPU (release)
    learning_rate: float  # of AdamW, for the audio encoder too (release)
    weight_decay: float  # of AdamW (release: torch's own)
    learning_rate_decay: Decay  # see models/learning_rate.py (release: none)
    gradient_clip: float  # largest norm of the gradient; 0 is no limit (release)
    steps: int  # optimiser steps: epochs of the release's configs x batches of an epoch
    velocity_weight: float  # λ2, of the error of the differences between frames (release)
    length_normalised: bool  # the loss is the mean over real frames; the release counts the padding of short clips too
    silence: float  # probability that training hears silence instead, which guidance needs (release: 0)
    crop_frames: int  # training sees a random stretch of so many frames of a longer clip; 0: whole clips (release)
    precision: Literal["32-true", "bf16-mixed"]  # as Lightning spells it (release: 32 bit)
    seed: int  # of initial weights, examples and noise
    log_every: int  # steps between two points of the training curve
    val_every: int  # steps between two validations, and between two states that a killed training resumes from

    # Examples
    buffer_clips: int  # clips held by each loader process, from which batches are drawn; 8 MB each in VOCASET, 32 in BIWI
    loader_workers: int  # processes that read, for each GPU; 0 reads in the trainer itself

    def __post_init__(self):
        check_types(self)
        for holds, rule in (
            (min(self.vertices, self.fps, self.period, self.layers) > 0, "vertices, fps, period and layers must be above 0"),
            (len(set(self.speakers)) == len(self.speakers), "speakers must differ from each other"),
            (self.heads > 0 and self.channels % self.heads == 0, "channels must be a multiple of heads"),
            (self.channels % 2 == 0 and self.step_width % 2 == 0, "channels and step_width must be even"),
            (min(self.feedforward, self.audio_width) > 0, "feedforward and audio_width must be above 0"),
            (not self.encodes or self.audio_width == ENCODER_WIDTH, f"audio_width of an encoder must be {ENCODER_WIDTH}"),
            (self.audio != "speech" or self.speech_encoder != "", "the speech column needs speech_encoder, the one that made it"),
            (self.audio_std > 0, "audio_std must be above 0"),
            (0 <= self.dropout < 1, "dropout must be in [0, 1)"),
            (0 <= self.silence <= 1, "silence must be in [0, 1]"),
            (self.guidance == 0 or self.silence > 0, "guidance needs a training that heard silence: set silence above 0"),
            (self.crop_frames == 0 or self.crop_frames > 1, "crop_frames must be 0 or at least 2"),
            (min(self.audio_context, self.audio_noise, self.velocity_weight) >= 0, "no weight or width may be below 0"),
            (min(self.batch_size, self.buffer_clips) > 0, "batch_size and buffer_clips must be above 0"),
            (min(self.val_every, self.log_every) > 0, "val_every and log_every must be above 0"),
            (max(self.val_every, self.log_every) <= self.steps, "val_every and log_every must be at most steps"),
            (self.train_timesteps > 1, "train_timesteps must be at least 2"),
            (0 < self.beta_start <= self.beta_end < 1, "betas must rise between 0 and 1"),
        ):
            if not holds:
                raise WrongConfig(rule)

    @property
    def encodes(self) -> bool:
        """Whether the network hears the sound itself, and not a column."""
        return self.audio in ENCODERS

    @property
    def styles(self) -> int:
        """K: rows of the style table."""
        return max(1, len(self.speakers))

    @property
    def noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule("scaled_linear", self.train_timesteps, self.beta_start, self.beta_end)

    @classmethod
    def from_dict(cls, preset: str, overrides: Mapping[str, Any]) -> "Config":
        """The preset of this name with some fields changed. Raises WrongConfig."""
        if preset not in PRESETS:
            raise WrongConfig(f"diffspeaker has no preset {preset!r}; it has {', '.join(PRESETS)}")
        return changed(PRESETS[preset], overrides)


VOCASET = Config(  # 19.65 M parameters beside the encoder's 94.4 M
    vertices=5023,
    fps=30,
    speakers=(
        "FaceTalk_170728_03272_TA",
        "FaceTalk_170904_00128_TA",
        "FaceTalk_170725_00137_TA",
        "FaceTalk_170915_00223_TA",
        "FaceTalk_170811_03274_TA",
        "FaceTalk_170913_03279_TA",
        "FaceTalk_170904_03276_TA",
        "FaceTalk_170912_03278_TA",
    ),
    normalise=False,
    audio="wav2vec2-base",
    pretrained="",
    speech_encoder="",
    audio_width=ENCODER_WIDTH,
    audio_mean=0.0,
    audio_std=1.0,
    audio_context=0,
    audio_noise=0.0,
    channels=512,
    feedforward=1024,
    layers=1,
    heads=4,
    dropout=0.1,
    step_width=ENCODER_WIDTH,
    period=30,
    train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    smoothing=True,
    guidance=0.0,
    batch_size=32,
    learning_rate=1e-4,
    weight_decay=0.01,
    learning_rate_decay="none",
    gradient_clip=0.0,
    steps=90_000,  # 9000 epochs of 314 clips
    velocity_weight=1.0,
    length_normalised=False,
    silence=0.0,
    crop_frames=0,
    precision="32-true",
    seed=1234,
    log_every=50,
    val_every=1000,
    buffer_clips=512,
    loader_workers=1,
)

BIWI = replace(  # 158.9 M parameters beside the encoder's
    VOCASET,
    vertices=23370,
    fps=25,
    speakers=("F2", "F3", "F4", "M3", "M4", "M5"),
    audio="hubert-base",
    channels=1024,
    feedforward=2048,
    period=25,
    smoothing=False,
    batch_size=16,
    steps=15_000,  # 500 epochs, each 20 times 190 clips, on 8 GPUs
    val_every=500,
    buffer_clips=128,
)

# MediaPipe's points as any video gives them. What is plainly better and no release binds: motion as large as the noise, whole
# clips only where they are short, and a loss in which a short clip weighs what its frames do.
MESH = replace(
    VOCASET,
    vertices=478,
    fps=25,
    speakers=(),
    normalise=True,
    period=25,
    smoothing=False,
    learning_rate_decay="cosine",
    gradient_clip=1.0,
    steps=50_000,
    length_normalised=True,
    crop_frames=250,
    seed=0,
)

# Eighteen seconds of two speakers, for the corpus of that name: as small as they are short. The encoder that comes inside a
# package hears the sound, as a column; a second layer and the sound around each frame stand in for training that encoder,
# and noise on what it hears for more speech. A minute on two cores.
SAMPLE = replace(
    MESH,
    audio="speech",
    speech_encoder="moonshine-tiny",
    audio_width=288,
    audio_std=0.53,  # of the column over the corpus
    audio_context=5,
    audio_noise=1.0,
    channels=64,
    feedforward=128,
    layers=2,
    dropout=0.3,
    step_width=128,
    smoothing=True,
    batch_size=8,
    learning_rate=5e-4,
    weight_decay=0.5,
    steps=1600,
    log_every=20,
    val_every=100,
    crop_frames=50,
    buffer_clips=64,
    loader_workers=0,
)

PRESETS = {"vocaset": VOCASET, "biwi": BIWI, "mesh": MESH, "sample": SAMPLE}
