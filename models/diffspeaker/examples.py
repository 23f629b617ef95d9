"""Shards to batches.

    B  batch     T  frames of a clip     S  its rows or samples of audio     D  numbers of a row     X = 3 x vertices
    K  styles

A clip is vertices.npy, template.npy and json beside mel.npy or speech.npy, or beside wav for the encoders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, IterableDataset

from data.media.audio import wav_samples
from data.shardset import Clip, json_object, npy_array
from models.diffspeaker.config import Config
from models.given import Given
from models.streaming import Endless, Share, endless_clips, filled, stream, training_loader

SOUND_RATE = 16_000  # Hz, of the wav member and of the encoders
ROWS_PER_SECOND = 50  # of the columns, and of what the encoders make of sound
SHORTEST_SOUND = 400  # samples of the encoders' first row
SILENCE = {"mel": -80.0}  # rows of a column for silence; 0 for the others, and for samples


class UnknownSpeaker(ValueError):
    """A speaker whom the config does not list has no style to train."""


class Example(NamedTuple):
    """One clip, or a stretch of one."""

    audio: Tensor  # (S, D) rows of the column, or (S,) samples with mean 0 and variance 1; float32
    motion: Tensor  # (T, X) vertices less the template, float32
    style: Tensor  # (K,) weights of the styles, float32


class Batch(NamedTuple):
    """Examples padded with zeros to the longest, audio and motion apart."""

    audio: Tensor  # (B, S, D) or (B, S)
    audio_sizes: Tensor  # (B,) int64, real rows or samples
    motion: Tensor  # (B, T, X)
    frames: Tensor  # (B,) int64, real frames
    style: Tensor  # (B, K)


@dataclass(frozen=True)
class DecodedClip:
    """A clip in memory."""

    key: str
    audio: np.ndarray  # (S, D) float32; or (S,) samples in [-1, 1]
    motion: np.ndarray  # (T, X) float32
    template: np.ndarray  # (V, 3) float32
    style: np.ndarray  # (K,) float32

    def example(self, config: Config, first: int = 0, last: int | None = None) -> Example:
        """Frames `first` to `last` with the sound of that time."""
        frames, size = len(self.motion), len(self.audio)
        last = frames if last is None else last
        heard = self.audio[round(first * size / frames) : max(round(last * size / frames), 1)]
        audio = unit_variance(heard) if config.encodes else heard
        return Example(*map(torch.from_numpy, (audio, self.motion[first:last], self.style)))

    def training_example(self, config: Config, random: np.random.Generator) -> Example:
        """The clip, or a random stretch of it; with silence for its sound if `config` says so."""
        length = min(config.crop_frames or len(self.motion), len(self.motion))
        first = int(random.integers(len(self.motion) - length + 1))
        example = self.example(config, first, first + length)
        if random.random() < config.silence:
            return example._replace(audio=silence_like(example.audio, config))
        return example


def unit_variance(sound: np.ndarray) -> np.ndarray:
    """Samples with mean 0 and variance 1, as the encoders were trained on; silence stays silence."""
    sound = sound.astype(np.float32)
    return ((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)).astype(np.float32)


def silence_like(audio: Tensor, config: Config) -> Tensor:
    """What silence of this length is to the system."""
    return torch.full_like(audio, SILENCE.get(config.audio, 0.0))


def style_of(config: Config, speaker: str) -> np.ndarray:
    """Weights (K,) of one of the config's speakers, or, for anybody else, of all of them alike."""
    if speaker in config.speakers:
        return np.eye(config.styles, dtype=np.float32)[config.speakers.index(speaker)]
    return np.full(config.styles, 1 / config.styles, np.float32)


def decode_clip(clip: Clip, config: Config) -> DecodedClip:
    """A clip's members. ValueError, naming the clip, if they do not fit each other or `config`."""
    wanted = ("vertices.npy", "template.npy", "json", "wav" if config.encodes else f"{config.audio}.npy")
    if missing := [member for member in wanted if member not in clip.members]:
        raise ValueError(f"clip {clip.key} has no {' and no '.join(missing)}: run the stage that makes it")
    about = json_object(clip.members["json"])
    if about["fps"] != config.fps:
        raise ValueError(f"clip {clip.key} has {about['fps']} fps, not {config.fps}: set fps in the system's overrides")
    vertices_TV3, template_V3 = npy_array(clip.members["vertices.npy"]), npy_array(clip.members["template.npy"])
    frames, expected = len(vertices_TV3), (config.vertices, 3)
    if vertices_TV3.shape != (frames, *expected) or template_V3.shape != expected or not frames:
        shapes = f"vertices {vertices_TV3.shape} and template {template_V3.shape}"
        raise ValueError(f"clip {clip.key} has {shapes}, not {expected}: set vertices in the system's overrides")
    motion_TX = (vertices_TV3.astype(np.float32) - template_V3.astype(np.float32)).reshape(frames, -1)
    if not np.isfinite(motion_TX).all():
        raise ValueError(f"clip {clip.key} has vertices that are not finite: run the stage that makes them again")
    audio = _audio(clip, config, frames)
    return DecodedClip(clip.key, audio, motion_TX, template_V3, style_of(config, speaker_of(clip.key)))


def _audio(clip: Clip, config: Config, frames: int) -> np.ndarray:
    if config.encodes:
        sound, rate = wav_samples(clip.members["wav"])
        if rate != SOUND_RATE:
            raise ValueError(f"clip {clip.key} has sound at {rate} Hz, not {SOUND_RATE}: change align.sample_rate")
        return np.pad(sound, (0, max(0, SHORTEST_SOUND - len(sound))))
    rows_SD = npy_array(clip.members[f"{config.audio}.npy"]).astype(np.float32)
    if rows_SD.ndim != 2 or rows_SD.shape[1] != config.audio_width:
        raise ValueError(
            f"clip {clip.key} has a {config.audio}.npy of the shape {rows_SD.shape}, not (…, {config.audio_width}): "
            "set audio_width in the system's overrides"
        )
    seconds = frames / config.fps
    if abs(len(rows_SD) / ROWS_PER_SECOND - seconds) > 0.1 + 0.05 * seconds:  # VOCASET's own clocks differ by 2 %
        raise ValueError(
            f"clip {clip.key} has {len(rows_SD)} rows of {config.audio}.npy, {ROWS_PER_SECOND} a second, "
            f"for {seconds:.2f} s of motion: run its stage again"
        )
    if not np.isfinite(rows_SD).all():
        raise ValueError(f"clip {clip.key} has a {config.audio}.npy that is not finite: run its stage again")
    return rows_SD


def speaker_of(key: str) -> str:
    """The first half of a clip's key."""
    return key.partition("/")[0]


def collate(examples: list[Example]) -> Batch:
    """Examples of any lengths to a batch."""
    audio, motion, style = zip(*examples, strict=True)
    audio_sizes, frames = (torch.tensor([len(one) for one in sort]) for sort in (audio, motion))
    return Batch(
        pad_sequence(list(audio), batch_first=True),
        audio_sizes,
        pad_sequence(list(motion), batch_first=True),
        frames,
        torch.stack(list(style)),
    )


class TrainingExamples(Endless[Example]):
    """Examples without end, each clip as often as any other.

    If the whole set fits into `config.buffer_clips`, each clip is read once and every time round has an order of its own;
    otherwise each next so many clips are shuffled. Shards are divided over ranks and loader processes, anew each time round;
    where there are too few, some processes share one. The order depends on `config.seed`, the rank and the number of processes
    alone. Raises DamagedShard, UnknownSpeaker, ValueError.
    """

    def __init__(self, shards: Path, config: Config):
        self.shards, self.config = filled(shards), config
        found = sorted({speaker_of(key) for key in self.shards.keys})
        if config.speakers and (unknown := [speaker for speaker in found if speaker not in config.speakers]):
            raise UnknownSpeaker(
                f"{shards} has clips of {', '.join(unknown)}, whom the config's speakers do not name: "
                f"set speakers in the system's overrides, to [{', '.join(found)}] or to [] for one style for everybody"
            )

    def examples(self, share: Share, first: int) -> Iterator[Example]:
        size = min(len(self.shards.keys), self.config.buffer_clips)
        first_round, drawn = divmod(first, size)
        rounds = (
            self._round(clips, np.random.default_rng((self.config.seed, share.number, number)))
            for number, clips in enumerate(self._in_memory(share, first_round, size), first_round)
        )
        return islice(chain.from_iterable(rounds), drawn, None)

    def _in_memory(self, share: Share, first: int, size: int) -> Iterator[list[DecodedClip]]:
        """The clips of each round from number `first` on."""
        if len(self.shards.keys) == size:
            yield from repeat(list(self.clips()))
        arriving = endless_clips(self.shards, self.config.seed, share, first * size)
        while True:
            yield [decode_clip(clip, self.config) for clip in islice(arriving, size)]

    def _round(self, clips: list[DecodedClip], random: np.random.Generator) -> Iterator[Example]:
        for chosen in random.permutation(len(clips)):
            yield clips[chosen].training_example(self.config, random)

    def clips(self) -> Iterator[DecodedClip]:
        """Every clip once, in the order of the keys."""
        return (decode_clip(clip, self.config) for clip in stream(self.shards, self.shards.index.shards))

    def statistics(self) -> tuple[np.ndarray, float]:
        """Mean (X,) of all frames' motion, and the root of the mean square of what remains, over all coordinates."""
        frames, sum_X, squares = 0, np.zeros(3 * self.config.vertices), 0.0
        for clip in self.clips():
            frames += len(clip.motion)
            sum_X += clip.motion.sum(axis=0, dtype=np.float64)
            squares += float(np.square(clip.motion, dtype=np.float64).sum())
        mean_X = sum_X / frames
        variance = squares / frames / len(mean_X) - float(np.square(mean_X).mean())
        return mean_X.astype(np.float32), max(variance, 1e-12) ** 0.5


def loaders(config: Config, given: Given) -> tuple[DataLoader, DataLoader]:
    """Batches of the two shard sets; the training ones have no end. Under torchrun each rank has its own."""
    return (
        training_loader(TrainingExamples(given.train, config), config.batch_size, config.loader_workers, given.step, collate),
        DataLoader(ValidationExamples(given.val, config), config.batch_size, collate_fn=collate),
    )


class ValidationExamples(IterableDataset[Example]):
    """Every clip, whole, once each time round. A speaker of no style of his own has the mean of all."""

    def __init__(self, shards: Path, config: Config):
        self.shards, self.config = filled(shards), config

    def __iter__(self) -> Iterator[Example]:
        for clip in self.shards.clips():
            yield decode_clip(clip, self.config).example(self.config)
