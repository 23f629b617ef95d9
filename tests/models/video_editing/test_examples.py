from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.shardset import Clip, ShardSet, npy_bytes
from models.images import box_mask, to_uint8, to_unit
from models.video_editing import examples
from models.video_editing.examples import (
    TrainingExamples,
    audio_windows,
    decode_clip,
    mirrored,
    validation_examples,
)
from tests.models.video_editing.corpus import CONFIG, decoded_clip, write_corpus


def clip_of(example):
    return round(float(example.frame.float().mean()) / 10)


def frame_of(example):
    """The last two of a window's rows are those of its own frame, at frame - 80 dB."""
    return round(float(example.audio[-1]) + 80)


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
        return [batch.audio for batch in islice(DataLoader(examples, 4, num_workers=workers), 6)]

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
    assert torch.equal(flipped.audio, plain.audio)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_a_perturbed_frame_is_a_little_off(monkeypatch, strength):
    """A picture whose levels are its own coordinates says where each of its pixels comes from."""
    x, y = np.meshgrid(np.arange(128), np.arange(128))
    levels = np.stack([2 * x, 2 * y, np.full((128, 128), 100)], axis=2).astype(np.uint8)
    image, random = torch.from_numpy(levels), np.random.default_rng(0)

    def off(**limits):  # by how many levels, in 20 perturbations
        for name in ("ROTATION", "SCALE", "SHIFT", "CONTRAST", "TINT"):
            monkeypatch.setattr(examples, name, limits.get(name, 0.0))
        return [examples.perturbed(image, strength, random).numpy().astype(int) - levels for _ in range(20)]

    middle = slice(24, 104)
    for changed, limit in (
        (off(SHIFT=0.02), 0.02 * 128),
        (off(SCALE=0.03), 0.03 * 40),
        (off(ROTATION=0.05), 0.05 * 40 + 0.1),
    ):
        pixels = np.abs([one[middle, middle, :2] for one in changed]) / 2  # each pixel is two levels
        assert strength * limit / 2 <= pixels.max() <= strength * limit + 0.5
        assert not any(one[..., 2].any() for one in changed), "one colour stays that colour"
    shifted = off(SHIFT=0.02)
    assert all(len(np.unique(one[middle, middle, axis])) <= 2 for one in shifted for axis in (0, 1))
    tinted = np.array(off(TINT=0.05))[:, middle, middle]
    assert np.ptp(tinted, axis=(1, 2)).max() == 0
    assert strength * 255 * 0.025 <= np.abs(tinted).max() <= strength * 255 * 0.05 + 0.5
    contrasted = np.array(off(CONTRAST=0.1))
    assert np.abs(contrasted[:, :, 63:65, 0]).max() <= 1, "the middle grey stays"
    assert strength * 127 * 0.05 <= np.abs(contrasted).max() <= strength * 127 * 0.1 + 0.5
    if strength == 0:
        assert not any(one.any() for one in off(ROTATION=1.0, SCALE=1.0, SHIFT=1.0, CONTRAST=1.0, TINT=1.0))


def test_only_the_previous_frame_is_perturbed():
    clip, config = decoded_clip(6), replace(CONFIG, previous_perturbation=1.0)
    plain = [clip.training_example(CONFIG, np.random.default_rng(seed)) for seed in range(30)]
    changed = [clip.training_example(config, np.random.default_rng(seed)) for seed in range(30)]
    for one, other in zip(plain, changed, strict=True):
        assert torch.equal(one.frame, other.frame) and torch.equal(one.identity, other.identity)
        assert other.previous.dtype == torch.uint8 and not torch.equal(one.previous, other.previous)
    hidden = [clip.training_example(replace(config, previous_dropout=0.5), np.random.default_rng(seed)) for seed in range(60)]
    assert 15 < sum(torch.equal(example.previous, example.identity) for example in hidden) < 45


@pytest.mark.parametrize("audio, silence", [("mel", -80.0), ("speech", 0.0)])
def test_training_hears_silence_as_often_as_the_config_says(audio, silence):
    clip, random = decoded_clip(6), np.random.default_rng(0)
    config = replace(CONFIG, audio_dropout=0.3, audio=audio, speech_encoder="moonshine-tiny")
    heard = [clip.training_example(config, random).audio for _ in range(200)]
    assert 35 < sum(torch.equal(one, torch.full_like(one, silence)) for one in heard) < 85
    assert all(one.any() for one in (clip.training_example(CONFIG, random).audio for _ in range(20)))


def test_speech_instead_of_the_spectrogram(tmp_path):
    clip = next(ShardSet(write_corpus(tmp_path / "set", [4])).clips())
    config = replace(CONFIG, audio="speech", audio_width=24, speech_encoder="moonshine-tiny")
    rows = np.random.default_rng(0).standard_normal((8, 24)).astype(np.float16)
    with pytest.raises(ValueError, match=r"speaker/clip00 has no speech\.npy"):
        decode_clip(clip, config)
    decoded = decode_clip(Clip(clip.key, clip.members | {"speech.npy": npy_bytes(rows)}), config)
    windows = decoded.windows.reshape(4, 4, 24)
    assert windows.dtype == np.float32
    assert not windows[0, :2].any() and np.array_equal(windows[0, 2:], rows[:2])
    assert np.array_equal(windows[3], rows[4:8])
    with pytest.raises(ValueError, match=r"speaker/clip00: speech.npy .* \(8, 288\): set audio_width"):
        decode_clip(Clip(clip.key, clip.members | {"speech.npy": npy_bytes(rows)}), replace(config, audio_width=288))
    rows[3, 3] = np.nan
    with pytest.raises(ValueError, match=r"speaker/clip00 has a speech.npy that is not finite"):
        decode_clip(Clip(clip.key, clip.members | {"speech.npy": npy_bytes(rows)}), config)


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
