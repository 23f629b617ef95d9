"""A person's clips, with the head painted already, to single frames.

The head is trained, and what it paints of a frame is painted once, by the stage `heads`. The set's folder holds the head too,
and PostNet, which a sound's landmarks come from.

T  frames of a clip     S  pixels of a picture's side     D  numbers of a row of audio, 50 rows a second
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from data.npz import BadFrames, npz_frames
from data.shardset import Clip, ShardSet
from models.checkpoint import read_config
from models.geneface.config import Config
from models.geneface.network import HEARD, ROWS, WINDOWS
from models.given import Given
from models.head.config import Config as HeadConfig
from models.head.examples import FilmedClip, Person, person_of, reduced
from models.head.examples import decode_clip as decode_filmed
from models.hearing import SILENCE, Audio, check_members, heard_rows
from models.presets import WrongConfig
from models.streaming import DrawnExamples, copied, spread, training_loader

HEADS = "heads.npz"  # member that the stage `heads` adds: its `heads` are (T, S, S, 4) uint8, colour times opacity, opacity
HEAD, POSTNET = "head", "postnet"  # folders of their checkpoints beside train/ and val/


class Example(NamedTuple):
    """One frame; collated, each tensor has B in front."""

    image: Tensor  # (S, S, 3) uint8, as filmed
    behind: Tensor  # (S, S, 3) uint8, torso over background: what is there without the head
    background: Tensor  # (S, S, 3) uint8
    head: Tensor  # (S, S, 4) uint8, colour times opacity, opacity
    pose: Tensor  # (4, 4) float32, camera from head, metres
    focal: Tensor  # () float32, pixels
    center: Tensor  # (2,) float32, pixels
    sound: Tensor  # (30, D) float32; D is 0 in the grid form, which hears nothing
    number: Tensor  # () int64, of the frame among the person's training frames; 0 for others


@dataclass(frozen=True)
class PaintedClip:
    """A clip in memory."""

    filmed: FilmedClip
    heads: np.ndarray  # (T, S, S, 4) uint8
    background: np.ndarray  # (S, S, 3) uint8
    sound: np.ndarray  # (T, 30, D) float32, a view of one padded column

    def example(self, index: int) -> Example:
        of = self.filmed.example(index)
        background, head, sound = (torch.from_numpy(own) for own in (self.background, self.heads[index], self.sound[index]))
        return Example(of.image, of.behind, background, head, of.pose, of.focal, of.center, sound, of.number)


@dataclass(frozen=True)
class Below:
    """What the clips of the stage `heads` are read with."""

    config: Config
    head: HeadConfig
    person: Person

    @classmethod
    def of(cls, config: Config, train: Path) -> "Below":
        """For the sets beside `train`. Raises BadCheckpoint, and WrongConfig if the head paints pictures of another size."""
        head = read_config(train.parent / HEAD, HeadConfig)
        if head.image_size != config.image_size:
            raise WrongConfig(f"image_size is {config.image_size}, and the head paints {head.image_size}: set both alike")
        return cls(config, head, person_of(train))

    def decode(self, clip: Clip) -> PaintedClip:
        """A clip in memory. ValueError, naming it, if its members do not fit each other or the configuration."""
        config = self.config
        check_members(clip, (HEADS, f"{config.audio}.npy") if config.form == "mlp" else (HEADS,))
        filmed = decode_filmed(clip, self.head, self.person)
        frames = len(filmed.images)
        rows_SD = np.zeros((2 * frames, 0), np.float32)
        if config.form == "mlp":
            rows_SD = heard_rows(clip, config.audio, config.audio_width, frames)
        heads, background = heads_of(clip, frames, config.image_size), background_of(clip, config.image_size)
        return PaintedClip(filmed, heads, background, sound_windows(rows_SD, config.audio))


def background_of(clip: Clip, size: int) -> np.ndarray:
    """`(S, S, 3)` uint8: what is behind the person. ValueError, naming the clip, if it has none."""
    check_members(clip, ("background.png",))
    background = np.asarray(Image.open(io.BytesIO(clip.members["background.png"])).convert("RGB"))
    return np.array(reduced(background, size))  # a copy, which may be written to, as torch wants


def heads_of(clip: Clip, frames: int, size: int) -> np.ndarray:
    """The heads, `(T, S, S, 4)` uint8. ValueError, naming the clip, if they are others."""
    try:
        return np.stack(list(npz_frames(clip.members[HEADS], "heads", (frames, size, size, 4))))
    except BadFrames as error:
        raise ValueError(f"clip {clip.key}: {HEADS}: {error}: run the stage `heads` again") from error


def sound_windows(rows_SD: np.ndarray, audio: Audio) -> np.ndarray:
    """Rows (2T, D) of a column -> (T, 30, D): what frame i hears, the windows of frames i - 4 … i + 3 in one.

    A frame's window has the 8 rows before its first, and 8 from there: 2i - 16 … 2i + 13 of them all. Silence is beyond the ends.
    (In the release, the windows of frames beyond them are all silence.)
    """
    before = 2 * (WINDOWS // 2) + ROWS // 2
    padded = np.pad(rows_SD, ((before, HEARD - before), (0, 0)), constant_values=SILENCE[audio])
    return np.lib.stride_tricks.sliding_window_view(padded, HEARD, axis=0, writeable=True)[: len(rows_SD) : 2].swapaxes(1, 2)


class TrainingExamples(DrawnExamples[PaintedClip, Example]):
    """Each frame of the person's as likely as any other."""

    def __init__(self, shards: Path, below: Below):
        config = below.config
        super().__init__(shards, config.seed, config.buffer_clips, config.frames_per_clip)
        self.below = below

    def decode(self, clip: Clip) -> PaintedClip:
        return self.below.decode(clip)

    def count(self, clip: PaintedClip) -> int:
        return len(clip.heads)

    def draw(self, clip: PaintedClip, random: np.random.Generator) -> Example:
        return clip.example(int(random.integers(len(clip.heads))))


def validation_examples(shards: Path, below: Below) -> list[Example]:
    """`config.frames_per_clip` frames of every clip, evenly spread: the same ones each time."""
    clips, number = (below.decode(clip) for clip in ShardSet(shards).clips()), below.config.frames_per_clip
    return [copied(clip.example(index)) for clip in clips for index in spread(range(len(clip.heads)), number)]


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Frames of the two sets; the training ones have no end. Under torchrun each rank has its own."""
    below = Below.of(config, given.train)
    return (
        training_loader(TrainingExamples(given.train, below), config.batch_size, config.loader_workers, given.step),
        DataLoader(validation_examples(given.val, below), config.batch_size),  # type: ignore[arg-type]  # a list will do
    )
