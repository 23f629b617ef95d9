from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from data.shardset import Clip, Index, ShardSet, npy_bytes, write_index
from models.motion.examples import TrainingUtterances, ValidationUtterances, collate, loaders
from tests.models.motion.corpus import CONFIG, WIDTH, clip, given, spoken, write_corpus


def utterances(folder, crop_frames=0, buffer_clips=8, seed=0):
    return TrainingUtterances(folder, "speech", WIDTH, crop_frames, seed, buffer_clips)


def test_an_utterance_is_what_was_said(tmp_path):
    (utterance,) = islice(utterances(write_corpus(tmp_path / "set", [12])), 1)
    rows, motion = spoken(12, 0)
    assert utterance.key == "anna/clip00" and np.array_equal(utterance.speech, rows)
    assert np.allclose(utterance.motion, motion, atol=1e-5) and utterance.motion.dtype == np.float32


@pytest.mark.parametrize("buffer_clips", [3, 8])
def test_every_utterance_comes_as_often(tmp_path, buffer_clips):
    shards = write_corpus(tmp_path / "set", [5, 6, 7, 8, 9, 10])
    seen = Counter(len(one.motion) for one in islice(utterances(shards, buffer_clips=buffer_clips), 300))
    assert sorted(seen) == [5, 6, 7, 8, 9, 10] and all(abs(count - 50) < 30 for count in seen.values())
    again = [[one.key for one in islice(utterances(shards, buffer_clips=buffer_clips, seed=7), 40)] for _ in range(2)]
    assert again[0] == again[1], "the seed decides"


def test_a_stretch_has_the_sound_of_its_time(tmp_path):
    shards = write_corpus(tmp_path / "set", [30, 6])
    (rows, motion), starts, short = spoken(30, 0), Counter(), 0
    for one in islice(utterances(shards, crop_frames=8), 900):
        if one.key == "anna/clip01":
            assert len(one.motion) == 6 and len(one.speech) == 12
            short += 1
            continue
        first = int(np.abs(motion[:23] - one.motion[0]).sum(1).argmin())
        assert np.allclose(one.motion, motion[first : first + 8], atol=1e-5)
        assert np.array_equal(one.speech, rows[2 * first : 2 * first + 16])
        starts[first] += 1
    assert set(starts) == set(range(23)), "every stretch comes"
    assert 120 < short < 240, "four stretches of the long utterance to one of the short"


def test_a_batch_of_different_lengths(tmp_path):
    batch = collate(list(islice(ValidationUtterances(write_corpus(tmp_path / "set", [5, 9]), "speech", WIDTH), 2)), silence=-80.0)
    assert batch.speech.shape == (2, 24, WIDTH) and batch.motion.shape == (2, 12, 204)
    assert batch.mask.sum(1).tolist() == [5, 9] and batch.mask.dtype == torch.bool
    for row, frames in enumerate((5, 9)):
        rows, motion = spoken(frames, row)
        assert torch.equal(batch.speech[row, : 2 * frames], torch.from_numpy(rows))
        assert torch.allclose(batch.motion[row, :frames], torch.from_numpy(motion), atol=1e-5)
        assert (batch.speech[row, 2 * frames :] == -80).all() and not batch.motion[row, frames:].any()


def test_loaders_give_batches(tmp_path):
    train, val = loaders(replace(CONFIG, crop_frames=6), given(tmp_path, [9, 14, 8], [5, 8, 7]))
    assert next(iter(train)).motion.shape == (2, 8, 204)
    assert [batch.mask.sum(1).tolist() for batch in val] == [[5, 8], [7]], "whole, in order"


@pytest.mark.parametrize(
    "member, data, message",
    [
        ("speech.npy", np.zeros((40, 9)), r"anna/clip: speech.npy has the shape \(40, 9\).*set audio_width"),
        ("vertices.npy", np.zeros((20, 5023, 3)), "anna/clip: vertices.npy.*name a corpus of videos"),
        ("vertices.npy", None, "anna/clip has no vertices.npy"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, member, data, message):
    members = {name: stored for name, stored in clip("anna/clip", 20, 0).members.items() if name != member}
    if data is not None:
        members[member] = npy_bytes(data)
    with pytest.raises(ValueError, match=message):
        utterances(write_corpus(tmp_path / "set", [9])).decode(Clip("anna/clip", members))


def test_an_empty_set_is_named(tmp_path):
    (tmp_path / "set").mkdir()
    write_index(tmp_path / "set", Index.of([], {}))
    assert not ShardSet(tmp_path / "set").keys
    for made in (utterances, lambda folder: ValidationUtterances(folder, "speech", WIDTH)):
        with pytest.raises(ValueError, match="holds no clip"):
            made(tmp_path / "set")
