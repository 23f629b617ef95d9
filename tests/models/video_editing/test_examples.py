from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.shardset import Clip, ShardSet, npy_bytes
from models.video_editing.examples import (
    TrainingExamples,
    audio_windows,
    box_mask,
    decode_clip,
    mirrored,
    to_uint8,
    to_unit,
    validation_examples,
)
from tests.models.video_editing.corpus import CONFIG, decoded_clip, write_corpus


def clip_of(example):
    return round(float(example.frame.float().mean()) / 10)


def frame_of(example):
    """The last two of a window's rows are those of its own frame, at frame - 80 dB."""
    return round(float(example.mel[-1]) + 80)


def test_audio_windows():
    mel = np.random.default_rng(0).uniform(-80, 0, (10, 256)).astype(np.float32)
    windows = audio_windows(mel).reshape(5, 4, 256)
    assert np.array_equal(windows[0], np.concatenate([np.full((2, 256), -80, np.float32), mel[:2]]))
    assert np.array_equal(windows[2], mel[2:6])
    assert np.array_equal(windows[4], mel[6:10])


def test_box_mask_golden():
    mask = box_mask(torch.tensor([[20, 55, 109, 128], [0, 0, 1, 2]], dtype=torch.int16), 128)
    assert mask.shape == (2, 1, 128, 128) and mask.sum((1, 2, 3)).tolist() == [6497, 2]
    rows, columns = mask[0, 0].nonzero().T
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (20, 108, 55, 127)


def test_pixels_survive_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_uint8(to_unit(pixels)), pixels)


def test_a_clip_that_does_not_fit_is_named(tmp_path):
    clip = next(ShardSet(write_corpus(tmp_path / "set", [3])).clips())
    with pytest.raises(ValueError, match=r"speaker/clip00: mp4 .* \(3, 64, 64, 3\)"):
        decode_clip(clip, replace(CONFIG, image_size=64))
    short = Clip(clip.key, {**clip.members, "mel.npy": npy_bytes(np.zeros((5, 256), np.float32))})
    with pytest.raises(ValueError, match=r"speaker/clip00: mel.npy"):
        decode_clip(short, CONFIG)


@pytest.mark.parametrize("buffer_clips", [2, 64])
def test_every_frame_but_the_first_is_as_likely(tmp_path, buffer_clips):
    shards = write_corpus(tmp_path / "set", [3, 9, 1, 5])
    examples = TrainingExamples(shards, replace(CONFIG, buffer_clips=buffer_clips))
    seen = Counter((clip_of(example), frame_of(example)) for example in islice(examples, 2800))
    assert sorted(seen) == [(0, i) for i in (1, 2)] + [(1, i) for i in range(1, 9)] + [(3, i) for i in range(1, 5)]
    if buffer_clips == 64:
        assert all(140 < times < 260 for times in seen.values())


def test_an_example_is_of_one_clip(tmp_path):
    clip = next(ShardSet(write_corpus(tmp_path / "set", [6])).clips())
    numbered = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    example = replace(decode_clip(clip, CONFIG), frames=numbered).example(4)
    assert [int(image.max()) for image in (example.frame, example.previous, example.identity)] == [4, 3, 0]
    assert frame_of(example) == 4 and example.box.tolist() == [8, 16, 24, 32]


@pytest.mark.parametrize("buffer_clips, workers", [(2, 0), (2, 2), (64, 2)])
def test_the_order_depends_on_the_seed_alone(tmp_path, buffer_clips, workers):
    shards = write_corpus(tmp_path / "set", [4] * 5)

    def drawn(seed):
        examples = TrainingExamples(shards, replace(CONFIG, buffer_clips=buffer_clips, seed=seed))
        return [batch.mel for batch in islice(DataLoader(examples, 4, num_workers=workers), 6)]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))


def test_augmentation_does_what_the_config_says():
    clip, random = decoded_clip(6), np.random.default_rng(0)

    def hidden(previous_dropout):
        config = replace(CONFIG, previous_dropout=previous_dropout)
        examples = [clip.training_example(config, random) for _ in range(60)]
        return sum(torch.equal(example.previous, example.identity) for example in examples)

    assert hidden(1.0) == 60
    assert hidden(0.0) < 30  # frame 1's previous frame is the identity frame anyway
    plain, flipped = clip.example(3), mirrored(clip.example(3))
    assert torch.equal(flipped.frame.flip(1), plain.frame)
    inside = [box_mask(example.box[None], 32)[0, 0] for example in (plain, flipped)]
    assert torch.equal(inside[1].flip(1), inside[0])
    assert torch.equal(flipped.mel, plain.mel)


def test_a_random_identity_shows_the_same_clip():
    random = np.random.default_rng(0)
    clip = decoded_clip(6)
    config = replace(CONFIG, identity="random")
    seen = {clip.training_example(config, random).identity.numpy().tobytes() for _ in range(60)}
    assert seen == {frame.tobytes() for frame in clip.frames}


def test_validation_examples_are_spread_and_fixed(tmp_path):
    shards = write_corpus(tmp_path / "set", [9, 2])
    examples = validation_examples(shards, CONFIG)
    assert [(clip_of(example), frame_of(example)) for example in examples] == [(0, 1), (0, 4), (0, 8), (1, 1)]
