"""The heads: what the trained field says of every frame, and what the torso's training needs beside them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import stages.heads
from data.shardset import Clip, ShardSet, npy_array
from models.checkpoint import WEIGHTS
from models.geneface.examples import HEAD, POSTNET, Below, loaders
from models.geneface.training import build
from models.given import Given
from models.head.examples import camera_of
from models.head.generate import load, painted
from models.landmarks import motion_of
from stages.heads import HeadsParams, paint_heads, run
from tests.models.geneface.corpus import CONFIG, SIDE, made_clip, write_head, write_postnet
from tests.models.head.corpus import write_set
from tests.project import ROOT, change_params


def filmed(index, length):
    """A clip of the shards, of which no head is painted."""
    clip = made_clip(index, length)
    kept = {name: data for name, data in clip.members.items() if name != "heads.npz"}
    return Clip(clip.key, kept | {"wav": b"", "mask.npy": b""})


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with shards of three clips, a head and PostNet."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_params(tmp_path, engine={"workers": 1})
    write_set(Path("data/shards/some/train"), [filmed(0, 3), filmed(1, 2)])
    write_set(Path("data/shards/some/val"), [filmed(2, 2)])
    write_head(Path("data/checkpoints") / HEAD)
    write_postnet(Path("data/checkpoints") / POSTNET)
    return tmp_path


def in_this_process(stage, function, params, source, out, work, engine):
    """As `map_clips`, without the seconds in which a process starts."""
    write_set(out, [Clip(clip.key, function(clip, params)) for shard in source.shards for clip in shard.clips()])


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_split_is_painted_and_what_the_torso_stands_on_is_beside_it(project, monkeypatch, processes):
    if not processes:
        monkeypatch.setattr(stages.heads, "map_clips", in_this_process)
    run("some")
    sets = {split: {clip.key: clip for clip in ShardSet(f"data/heads/some/{split}").clips()} for split in ("train", "val")}
    assert (sorted(sets["train"]), sorted(sets["val"])) == (["person/clip00", "person/clip01"], ["person/clip02"])
    assert not {"wav", "mask.npy"} & set(sets["train"]["person/clip00"].members), "what training does not read is left"
    for name in (HEAD, POSTNET, f"{POSTNET}/motion"):
        weights = Path("data/heads/some") / name / WEIGHTS
        assert weights.read_bytes() == (Path("data/checkpoints") / name / WEIGHTS).read_bytes()

    given = Given(Path("data/heads/some/train"), Path("data/heads/some/val"))
    heads = Below.of(CONFIG, given.train).decode(sets["train"]["person/clip01"]).heads
    film, head = filmed(1, 2), load(Path("data/checkpoints") / HEAD)
    motion, poses = motion_of(npy_array(film.members["vertices.npy"])), npy_array(film.members["pose.npy"])
    # Over anything, they are what the head paints over that.
    behind = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)
    for index, picture in enumerate(painted(head, motion, poses, camera_of(film, SIDE / 48), behind)):
        over = heads[index, ..., :3] + (1 - heads[index, ..., 3:] / 255) * behind[index]
        assert np.abs(over - 255 * picture.color.numpy()).max() < 1.5
    assert heads[..., 3].std() > 2 and heads[..., :3].std() > 2

    module, (batches, _) = build(CONFIG, given), loaders(CONFIG, given)
    assert torch.isfinite(module.training_step(next(iter(batches)), 0))


def test_a_clip_s_heads_depend_on_the_head_and_on_no_other_clip(project):
    params = [HeadsParams("data/checkpoints/head", weights) for weights in "ab"]
    first, again = (paint_heads(filmed(1, 2), some) for some in params)
    assert first == again


def test_a_clip_that_lacks_something_is_named(project):
    clip = filmed(1, 2)
    less = Clip(clip.key, {name: data for name, data in clip.members.items() if name not in ("torso.npz", "pose.npy")})
    with pytest.raises(ValueError, match=r"clip person/clip01 has no pose.npy and no torso.npz: run the stage"):
        paint_heads(less, HeadsParams("data/checkpoints/head", "a"))
