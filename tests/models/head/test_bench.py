import numpy as np
import torch

from data.shardset import npy_array
from models.head.examples import camera_of, decode_clip, person_of
from models.head.generate import painted
from models.head.network import build
from models.landmarks import motion_of
from tests.models.head import bench
from tests.models.head.corpus import CONFIG, CONFIG_MLP, made_clip, write_set


def filmed(folder, config):
    clip = made_clip(0, 4)
    person = person_of(write_set(folder / "set", [clip]))
    head = build(config).eval()
    head.mean_X.copy_(torch.from_numpy(person.mean))
    head.std_X.copy_(torch.from_numpy(person.std))
    return head, clip, decode_clip(clip, config, person)


def test_a_timed_picture_is_the_one_that_is_generated(tmp_path):
    head, clip, film = filmed(tmp_path, CONFIG)
    size = CONFIG.image_size
    camera = camera_of(clip, size / 48)
    motion_TX, poses_T44 = motion_of(npy_array(clip.members["vertices.npy"])), npy_array(clip.members["pose.npy"])
    wanted = list(painted(head, motion_TX, poses_T44, camera, film.behind))[2]
    assert torch.allclose(bench.seen(head, film, 2, size).color, wanted.color, atol=1e-6)
    larger = bench.seen(head, film, 2, 2 * size).opacity
    assert larger.shape == (2 * size, 2 * size)
    halved = larger.reshape(size, 2, size, 2).mean((1, 3))
    assert np.corrcoef(halved.flatten(), wanted.opacity.flatten())[0, 1] > 0.9  # the same view, finer


def test_the_cost_of_deep_networks_is_that_of_their_rays(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "SIZES", (16, 32))
    head, _, film = filmed(tmp_path, CONFIG_MLP)
    few, many = bench.costs(head, film)
    assert few.samples == many.samples == 2 * 6 + 6 - 2
    real = bench.best(lambda: bench.seen(head, film, 0, 32), torch.device("cpu"))
    assert real / 3 < many.seconds < 3 * real
