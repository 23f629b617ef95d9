from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.shardset import Index, ShardSet, write_index
from models.given import Given
from models.landmarks import MOUTH, read_utterance
from models.syncnet.examples import TrainingPairs, ValidationPairs, loaders, pair
from tests.models.syncnet.corpus import CONFIG, WIDTH, counting, write_corpus

THIS, OTHER = counting("anna/this", 100, 1), counting("anna/other", 40, 2)


def drawn(synced, negatives="designed", this=THIS, other=OTHER, count=3000):
    """Of each pair the utterance that is heard (1 or 2), the first frame that is seen, and that of the sound."""
    random = np.random.default_rng(0)
    for _ in range(count):
        made = pair(this, other, synced, negatives, random)
        assert made.speech.shape == (10, 2) and made.mouth.shape == (5, 60) and bool(made.synced) == synced
        assert made.mouth[:, 0].diff().tolist() == [1] * 4
        assert made.speech[:, 0].diff().tolist() == [1] * 9
        yield int(made.speech[0, 1]), int(made.mouth[0, 0]), int(made.speech[0, 0]) / 2


def test_a_mouth_s_own_sound_is_of_the_same_time():
    seen = Counter()
    for number, first, at in drawn(synced=True):
        assert number == 1 and at == first
        seen[first] += 1
    assert set(seen) == set(range(96)), "every stretch of 5 frames comes"


def test_designed_negatives():
    """§1.5: 25 % of another utterance, 37.5 % from any other time, 37.5 % shifted by 2 to 5 frames."""
    other, near, far, shifts = 0, 0, 0, Counter()
    for number, first, at in drawn(synced=False):
        other += number == 2
        if number == 1:
            assert abs(at - first) >= 2
            near, far = near + (abs(at - first) <= 5), far + (abs(at - first) > 5)
            shifts[at - first] += 1
    assert other / 3000 == pytest.approx(0.25, abs=0.03)
    assert far / 3000 == pytest.approx(0.375 * 85 / 93, abs=0.03)
    assert {-5, -4, -3, -2, 2, 3, 4, 5} <= set(shifts)
    assert near / 3000 == pytest.approx(0.375 * 101 / 93, abs=0.03)


def test_the_release_never_hears_another_utterance():
    """It reads its own sound at the time that was meant for the other's."""
    assert {number for number, _, _ in drawn(synced=False, negatives="release")} == {1}
    assert any(at == first for _, first, at in drawn(synced=False, negatives="release"))


def test_the_release_may_read_past_the_end():
    random, short = np.random.default_rng(0), counting("anna/short", 9, 2)
    made = [pair(short, THIS, False, "release", random).speech for _ in range(400)]
    empty = sum(not speech.any() for speech in made)
    assert all(speech.shape == (10, 2) for speech in made)
    assert empty / 400 == pytest.approx(0.25 * 87 / 96, abs=0.06)


@pytest.mark.parametrize("frames", [8, 9, 30])
def test_of_a_single_utterance_negatives_are_of_another_time(frames):
    single = counting("anna/single", frames, 1)
    for number, first, at in drawn(synced=False, this=single, other=single, count=500):
        assert number == 1 and abs(at - first) >= 2


@pytest.mark.parametrize("buffer_clips", [2, 8])
def test_pairs_of_shards(tmp_path, buffer_clips):
    shards = write_corpus(tmp_path / "set", [20, 30, 12, 20, 40])
    utterances = [read_utterance(clip, "speech", WIDTH) for clip in ShardSet(shards).clips()]
    mouths, sounds = (
        {
            rows[step * first : step * first + length].tobytes(): (index, first)
            for index, utterance in enumerate(utterances)
            for rows in [np.ascontiguousarray(pick(utterance))]
            for first in range(len(utterance.motion) - 4)
        }
        for pick, step, length in ((lambda one: one.motion[:, MOUTH], 1, 5), (lambda one: one.speech, 2, 10))
    )
    counts = Counter()
    for example in islice(TrainingPairs(shards, replace(CONFIG, buffer_clips=buffer_clips)), 3000):
        seen, heard = mouths[example.mouth.numpy().tobytes()], sounds[example.speech.numpy().tobytes()]
        assert bool(example.synced) == (seen == heard)
        counts[bool(example.synced), seen[0] == heard[0]] += 1
    assert counts[True, True] == pytest.approx(1500, abs=120)
    assert counts[False, False] == pytest.approx(375, abs=90)


def test_the_order_depends_on_the_seed_alone(tmp_path):
    shards = write_corpus(tmp_path / "set", [20, 20, 20])

    def first(seed):
        return next(iter(DataLoader(TrainingPairs(shards, replace(CONFIG, seed=seed)), 50)))

    one, again, other = first(0), first(0), first(1)
    assert all(map(torch.equal, one, again)) and not torch.equal(one.speech, other.speech)


def test_validation_is_half_and_half_and_always_the_same(tmp_path):
    shards = write_corpus(tmp_path / "set", [20, 12, 30])
    _, val = loaders(replace(CONFIG, negatives="release"), Given(shards, shards))
    once, again = list(val), list(val)
    assert [len(batch.synced) for batch in once] == [64, 32]
    assert torch.cat([batch.synced for batch in once]).tolist() == [True, False] * 48
    assert all(torch.equal(*both) for batches in zip(once, again, strict=True) for both in zip(*batches, strict=True))
    designed = loaders(CONFIG, Given(shards, shards))[1]
    assert all(torch.equal(ours.speech, theirs.speech) for ours, theirs in zip(designed, once, strict=True))


def test_a_set_of_one_clip_is_enough(tmp_path):
    shards = write_corpus(tmp_path / "set", [20])
    train, val = loaders(CONFIG, Given(shards, shards))
    assert len(next(iter(train)).synced) == 64 and len(next(iter(val)).synced) == 32


def test_a_clip_too_short_for_negatives_is_named(tmp_path):
    shards = write_corpus(tmp_path / "set", [20, 7])
    for examples in (TrainingPairs(shards, CONFIG), ValidationPairs(shards, CONFIG)):
        with pytest.raises(ValueError, match=r"clip anna/clip01 has 7 frames; to shift its sound takes 8: set align.min_frames"):
            list(islice(examples, 100))


def test_an_empty_set_says_so(tmp_path):
    write_index(tmp_path, Index.of([], {}))
    for examples in (TrainingPairs, ValidationPairs):
        with pytest.raises(ValueError, match="holds no clip: see left_out"):
            examples(tmp_path, CONFIG)
