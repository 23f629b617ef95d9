import numpy as np
import pytest

from data.shardset import Clip, Index, json_bytes, write_index, write_shard
from models.landmarks import VALUES
from tests.models.postnet.bench import nearest, strangers


def test_the_nearest_frame_of_the_person_is_found():
    person = np.zeros((2, VALUES))
    person[1] = 1.0  # centimetres
    motion = person[[1, 0]].copy()
    assert nearest(motion, person) == 0
    motion[0, ::3] += 0.3  # each landmark of one frame of two 3 mm aside
    assert nearest(motion, person) == pytest.approx(1.5)


def shards(folder, **speakers):
    for part, names in speakers.items():
        clips = [Clip(f"{name}/{part}", {"json": json_bytes({"speaker": name})}) for name in names]
        (folder / part).mkdir(parents=True)
        write_index(folder / part, Index.of([write_shard(folder / part / "00000.tar", clips)], {}))
    return folder


def test_strangers_are_held_out_and_not_the_person(tmp_path):
    person = shards(tmp_path / "person", train=["anna"])
    voices = shards(tmp_path / "voices", train=["carl"], val=["anna", "bert"], test=["anna", "dora"])
    assert [clip.key for clip in strangers(person, voices)] == ["bert/val", "dora/test"]
    alone = shards(tmp_path / "alone", val=["anna"], test=["anna"])
    with pytest.raises(ValueError, match="anybody but anna"):
        strangers(person, alone)
