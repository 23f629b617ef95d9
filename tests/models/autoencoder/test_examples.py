from dataclasses import replace

import numpy as np
import pytest
import torch

from data.media.video import decode_frames, encode_frames
from data.shardset import Clip
from models.autoencoder.examples import TrainingExamples, decode_clip, loaders, validation_examples
from models.given import Given
from tests.models.autoencoder.corpus import CONFIG, made_frames, write_corpus


def places(frames, square):
    """Where in the clip (frame, y, x) a square is found."""
    size = len(square)
    windows = np.lib.stride_tricks.sliding_window_view(frames, (size, size), axis=(1, 2))
    same = windows == square.transpose(2, 0, 1)
    return np.argwhere(same.all((-1, -2, -3)))


@pytest.fixture
def noise():
    """Frames no two squares of which are alike, so that each tells where it is from."""
    return np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_squares_are_cut_from_anywhere_in_any_frame(tmp_path, noise, mirror):
    shards = write_corpus(tmp_path / "set", [2])
    examples = TrainingExamples(shards, replace(CONFIG, mirror=mirror))
    random, found = np.random.default_rng(0), set()
    for _ in range(800):
        square = examples.draw(noise, random).numpy()
        assert square.shape == (16, 16, 3) and square.dtype == np.uint8
        ((frame, y, x),) = places(noise, square[:, ::-1] if mirror else square)
        found.add((frame, y, x))
    assert found == {(frame, y, x) for frame in range(3) for y in range(5) for x in range(9)}


def test_half_are_mirrored_unless_told_otherwise(tmp_path, noise):
    examples, random = TrainingExamples(write_corpus(tmp_path / "set", [2]), CONFIG), np.random.default_rng(0)
    straight = sum(len(places(noise, examples.draw(noise, random).numpy())) for _ in range(300))
    assert 120 < straight < 180


def test_validation_is_the_middle_of_frames_evenly_spread_and_always_the_same(tmp_path):
    shards = write_corpus(tmp_path / "set", [9, 1])
    first, second = (validation_examples(shards, CONFIG) for _ in range(2))
    # Of the clip of one frame there is but that one.
    assert len(first) == 4 and all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    frames = decode_frames(encode_frames(made_frames(9), fps=25, crf=0))
    for example, index in zip(first[:3], (0, 4, 8), strict=True):
        assert np.array_equal(example.numpy(), frames[index, 4:20, 4:20])


def test_batches(tmp_path):
    shards = write_corpus(tmp_path / "set", [5, 5, 5])
    train, val = loaders(CONFIG, Given(shards, shards))
    batch = next(iter(train))
    assert batch.shape == (4, 16, 16, 3) and batch.dtype == torch.uint8
    assert [len(batch) for batch in val] == [4, 4, 1]


@pytest.mark.parametrize(
    "members, message",
    [
        ({"mask.npy": b""}, "clip speaker/a has no mp4: run the stage `align`"),
        (
            {"mp4": encode_frames(made_frames(2, 8), fps=25, crf=0)},
            "clip speaker/a has frames of 8 pixels, fewer than 16: set crop",
        ),
    ],
)
def test_a_clip_that_does_not_fit_is_named(members, message):
    with pytest.raises(ValueError, match=message):
        decode_clip(Clip("speaker/a", members), CONFIG)


def test_frames_smaller_than_the_crop_are_refused_in_training_and_in_validation(tmp_path):
    shards = write_corpus(tmp_path / "set", [3], size=8)
    with pytest.raises(ValueError, match="clip speaker/clip00 has frames of 8 pixels"):
        next(iter(TrainingExamples(shards, CONFIG)))
    with pytest.raises(ValueError, match="clip speaker/clip00 has frames of 8 pixels"):
        validation_examples(shards, CONFIG)
