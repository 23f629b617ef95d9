from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from data.shardset import Clip, Index, ShardSet, npy_array, npy_bytes, write_index, write_shard
from models.given import Given
from models.landmarks import motion_of
from models.postnet.examples import TrainingSteps, loaders, person_motion
from tests.models.postnet.corpus import CONFIG, given
from tests.models.syncnet.corpus import WIDTH


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    return given(tmp_path_factory.mktemp("given"))


def rows_of(shards):
    """All rows of the sound of a set, as bytes."""
    return {row.tobytes() for clip in ShardSet(shards).clips() for row in npy_array(clip.members["speech.npy"])}


def test_a_step_is_of_voices_and_of_the_person(some):
    step = next(iter(loaders(CONFIG, some)[0]))
    assert step.voices.mask.shape[0] == CONFIG.batch_size and step.person.mask.shape[0] == CONFIG.person_clips
    for batch, shards in ((step.voices, some.beside["voices"]), (step.person, some.train)):
        known = rows_of(shards)
        mask = batch.mask.repeat_interleave(2, 1)
        assert all(row.numpy().tobytes() in known for row in batch.speech[mask])
        assert batch.motion.shape == (*batch.mask.shape, 204) and batch.speech.shape[1:] == (2 * batch.mask.shape[1], WIDTH)
        assert batch.mask.shape[1] <= CONFIG.crop_frames and batch.mask.shape[1] % 4 == 0


def test_clips_are_whole_if_not_cropped(some):
    frames = {
        int(row.sum()) for step in islice(TrainingSteps(replace(CONFIG, crop_frames=0), some), 9) for row in step.person.mask
    }
    assert frames == {24, 40, 18}


def test_steps_are_the_same_again_and_loader_processes_have_their_own(some):
    first, second = (list(islice(TrainingSteps(CONFIG, some), 4)) for _ in range(2))
    assert all(torch.equal(one.voices.speech, other.voices.speech) for one, other in zip(first, second, strict=True))
    batches = iter(loaders(replace(CONFIG, loader_workers=2), some)[0])
    one, other = next(batches), next(batches)
    assert one.voices.speech.shape != other.voices.speech.shape or not torch.equal(one.voices.speech, other.voices.speech)
    del batches


def test_the_held_out_are_whole_one_by_one(some):
    batches = list(loaders(CONFIG, some)[1])
    assert [int(batch.mask.sum()) for batch in batches] == [22, 31] and [len(batch.mask) for batch in batches] == [1, 1]
    assert [batch.mask.shape[1] for batch in batches] == [24, 32]


def test_all_of_the_person_s_motion(some):
    motion = person_motion(some)
    clips = [motion_of(npy_array(clip.members["vertices.npy"])) for clip in ShardSet(some.train).clips()]
    assert motion.shape == (24 + 40 + 18, 204) and np.array_equal(motion, np.concatenate(clips))


def test_what_is_not_given_is_named(some):
    with pytest.raises(ValueError, match="'motion', a checkpoint, and 'voices', a shard set: give it 'voices' too"):
        loaders(CONFIG, Given(some.train, some.val, {"motion": some.beside["motion"]}))


def test_voices_of_another_column_are_named(some, tmp_path):
    members = {
        "vertices.npy": npy_bytes(np.zeros((12, 478, 3), np.float32)),
        "speech.npy": npy_bytes(np.zeros((24, 5), np.float32)),
    }
    write_index(tmp_path, Index.of([write_shard(tmp_path / "00000.tar", [Clip("ben/other", members)])], {}))
    other = Given(some.train, some.val, {**some.beside, "voices": tmp_path})
    with pytest.raises(ValueError, match=r"clip ben/other: speech\.npy has the shape"):
        next(iter(loaders(CONFIG, other)[0]))
