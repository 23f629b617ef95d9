from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from data.media.audio import wav_bytes
from data.shardset import Clip, json_bytes, npy_bytes
from models.diffspeaker.examples import (
    TrainingExamples,
    UnknownSpeaker,
    ValidationExamples,
    collate,
    decode_clip,
    loaders,
    style_of,
    unit_variance,
)
from models.given import Given
from tests.models.diffspeaker.corpus import SMALL, VERTICES, clip, motion_of, spoken, write_corpus

WAVES = replace(SMALL, audio="hubert-base", audio_width=768)


def changed(members):
    made = clip("anna/clip", 20, 0)
    return Clip(made.key, {**made.members, **members})


def test_a_clip_in_memory():
    decoded = decode_clip(clip("ben/clip", 20, 3), SMALL)
    assert decoded.audio.shape == (40, 16)
    assert np.allclose(decoded.motion, motion_of(spoken(20, 3)[0]).reshape(20, -1), atol=1e-7)
    assert decoded.style.tolist() == [0, 1]
    audio, motion, style = decoded.example(SMALL)
    assert audio.shape == (40, 16) and motion.shape == (20, 3 * VERTICES) and style.dtype == torch.float32


@pytest.mark.parametrize(
    "members, config, message",
    [
        ({"json": json_bytes({"fps": 30})}, SMALL, "anna/clip has 30 fps, not 25"),
        ({"vertices.npy": npy_bytes(np.zeros((20, 9, 3)))}, SMALL, r"anna/clip has vertices \(20, 9, 3\).* set vertices"),
        ({"template.npy": npy_bytes(np.zeros((9, 3)))}, SMALL, r"template \(9, 3\), not \(10, 3\)"),
        ({"vertices.npy": npy_bytes(np.full((20, 10, 3), np.nan))}, SMALL, "anna/clip has vertices that are not finite"),
        ({"vertices.npy": npy_bytes(np.zeros((0, 10, 3)))}, SMALL, "anna/clip has vertices"),
        ({"mel.npy": npy_bytes(np.zeros((40, 80)))}, SMALL, r"\(40, 80\).*set audio_width"),
        ({"mel.npy": npy_bytes(np.zeros((20, 16)))}, SMALL, "20 rows of mel.npy, 50 a second, for 0.80 s of motion"),
        ({"mel.npy": npy_bytes(np.full((40, 16), np.inf))}, SMALL, "mel.npy that is not finite"),
        ({"wav": wav_bytes(np.zeros(8000), 8000)}, WAVES, "sound at 8000 Hz, not 16000"),
    ],
)
def test_a_clip_that_does_not_fit_is_named(members, config, message):
    with pytest.raises(ValueError, match=message):
        decode_clip(changed(members), config)


def test_a_missing_column_is_named():
    made = clip("anna/clip", 20, 0)
    without = Clip(made.key, {name: data for name, data in made.members.items() if name not in ("vertices.npy", "mel.npy")})
    with pytest.raises(ValueError, match=r"anna/clip has no vertices.npy and no mel.npy"):
        decode_clip(without, SMALL)


def test_a_speaker_without_a_style(tmp_path):
    shards = write_corpus(tmp_path / "set", [9, 9, 9], speakers=("anna", "carl"))
    with pytest.raises(UnknownSpeaker, match=r"carl.*set speakers.*\[anna, carl\] or to \[\]"):
        TrainingExamples(shards, SMALL)
    assert style_of(SMALL, "carl").tolist() == [0.5, 0.5]
    assert [example.style.tolist() for example in ValidationExamples(shards, SMALL)] == [[1, 0], [1, 0], [0.5, 0.5]]
    anybody = replace(SMALL, speakers=())
    assert next(iter(TrainingExamples(shards, anybody))).style.tolist() == [1]


def test_a_batch_of_different_lengths():
    batch = collate([decode_clip(clip("anna/clip", frames, frames), SMALL).example(SMALL) for frames in (5, 9)])
    assert batch.audio.shape == (2, 18, 16) and batch.motion.shape == (2, 9, 3 * VERTICES)
    assert batch.audio_sizes.tolist() == [10, 18] and batch.frames.tolist() == [5, 9]
    assert not batch.motion[0, 5:].any() and not batch.audio[0, 10:].any()


def test_samples_are_levelled():
    sound = np.random.default_rng(0).normal(0.3, 2, 999).astype(np.float32)
    levelled = unit_variance(sound)
    assert levelled.mean() == pytest.approx(0, abs=1e-5) and levelled.std() == pytest.approx(1, abs=1e-4)
    assert not unit_variance(np.zeros(500, np.float32)).any()
    example = decode_clip(clip("anna/clip", 20, 0), WAVES).example(WAVES)
    assert example.audio.shape == (12_800,) and float(example.audio.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("config", [SMALL, WAVES], ids=["mel", "sound"])
def test_a_stretch_has_the_sound_of_its_time(config):
    config = replace(config, crop_frames=8)
    decoded = decode_clip(clip("anna/clip", 30, 0), config)
    decoded.audio[:] = np.linspace(0, 30, len(decoded.audio), endpoint=False).reshape(-1, *[1] * (decoded.audio.ndim - 1))
    decoded.motion[:] = np.arange(30)[:, None]
    random = np.random.default_rng(0)
    starts = set()
    for _ in range(300):
        example = decoded.training_example(replace(config, audio="mel"), random)
        first = int(example.motion[0, 0])
        assert len(example.motion) == 8 and float(example.audio.min()) == pytest.approx(first, abs=0.51)
        assert float(example.audio.max()) == pytest.approx(first + 8, abs=0.51)
        starts.add(first)
    assert starts == set(range(23)), "every stretch comes"


def test_silence_stands_in_for_the_sound():
    decoded, random = decode_clip(clip("anna/clip", 30, 0), SMALL), np.random.default_rng(0)
    examples = [decoded.training_example(replace(SMALL, silence=0.25), random) for _ in range(400)]
    silent = sum(bool((example.audio == -80).all()) for example in examples)
    assert 70 < silent < 130


@pytest.mark.parametrize("buffer_clips", [3, 8])
def test_every_clip_comes_as_often(tmp_path, buffer_clips):
    lengths = [5, 6, 7, 8, 9, 10]
    shards = write_corpus(tmp_path / "set", lengths)
    examples = TrainingExamples(shards, replace(SMALL, buffer_clips=buffer_clips))
    seen = Counter(len(example.motion) for example in islice(examples, 600))
    assert sorted(seen) == lengths and all(abs(count - 100) < 12 for count in seen.values())
    again = [len(example.motion) for example in islice(examples, 50)]
    assert again == [len(example.motion) for example in islice(examples, 50)], "the seed decides"


def test_the_units_of_the_motion(tmp_path):
    shards = write_corpus(tmp_path / "set", [5, 8, 20])
    examples = TrainingExamples(shards, SMALL)
    mean, scale = examples.statistics()
    motion = np.concatenate([decoded.motion for decoded in examples.clips()]).astype(np.float64)
    assert np.allclose(mean, motion.mean(axis=0), atol=1e-9)
    assert scale == pytest.approx(np.sqrt(np.square(motion - motion.mean(axis=0)).mean()), rel=1e-6)


def test_loaders_give_batches(tmp_path):
    shards = write_corpus(tmp_path / "set", [5, 8, 6])
    train, val = loaders(SMALL, Given(shards, shards))
    assert len(next(iter(train)).motion) == 2
    assert [batch.frames.tolist() for batch in val] == [[5, 6], [8]]
