"""The latents: what the autoencoder says of every frame, exactly, and the autoencoder beside them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.media.video import decode_frames
from data.shardset import ShardSet, npy_array
from models.autoencoder.generate import load
from models.checkpoint import WEIGHTS
from stages.latents import LatentParams, encoded, find_latents, run
from tests.models.difftalk.corpus import made_clip, write_autoencoder, write_set
from tests.project import ROOT, change_params

DIFFTALK = {"corpus": "some", "source": "latents", "preset": "sample", "overrides": {"mask": "nose_tip"}}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with shards of three clips and an autoencoder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_params(tmp_path, engine={"workers": 1}, systems={"difftalk": DIFFTALK})
    write_set(Path("data/shards/some/train"), [made_clip(0, 5), made_clip(1, 3)])
    write_set(Path("data/shards/some/val"), [made_clip(2, 4)])
    write_autoencoder(Path("data/checkpoints/autoencoder"))
    return tmp_path


def clips(split):
    return {clip.key: clip.members for clip in ShardSet(f"data/latents/some/{split}").clips()}


def test_each_split_is_encoded_and_the_autoencoder_stands_beside_it(project):
    run("some")
    train, val = clips("train"), clips("val")
    assert (sorted(train), sorted(val)) == (["speaker/clip00", "speaker/clip01"], ["speaker/clip02"])
    assert set(train["speaker/clip01"]) == {"latents.npy", "masked_latents.npy", "landmarks.npy", "speech.npy", "json"}
    assert npy_array(train["speaker/clip01"]["latents.npy"]).shape == (3, 3, 8, 8)
    assert npy_array(train["speaker/clip01"]["latents.npy"]).dtype == np.float32
    weights = Path("data/latents/some/autoencoder") / WEIGHTS
    assert weights.read_bytes() == (Path("data/checkpoints/autoencoder") / WEIGHTS).read_bytes()

    # What is hidden is what the preset's mask is, so that training and generation cannot disagree.
    clip = made_clip(2, 4)
    frames, points = decode_frames(clip.members["mp4"]), npy_array(clip.members["landmarks.npy"])
    network, black = load(Path("data/checkpoints/autoencoder")), frames.copy()
    for frame, row in zip(black, np.rint(points[:, 4, 1]).astype(int), strict=True):  # 4 is the tip of the nose
        frame[row:] = 0
    assert np.array_equal(npy_array(val["speaker/clip02"]["masked_latents.npy"]), encoded(network, black))
    assert np.array_equal(npy_array(val["speaker/clip02"]["latents.npy"]), encoded(network, frames))


def test_a_clip_s_latents_depend_on_the_autoencoder_and_on_no_other_clip(project):
    params = LatentParams("data/checkpoints/autoencoder", "a", "box")
    first, again = (find_latents(made_clip(1, 3), replace(params, weights=weights)) for weights in "ab")
    assert first == again
    write_autoencoder(Path("data/checkpoints/autoencoder"), seed=1)
    other = find_latents(made_clip(1, 3), replace(params, weights="c"))
    assert not np.allclose(npy_array(first["latents.npy"]), npy_array(other["latents.npy"]), atol=0.1)
