from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.geneface import network as network_module
from models.geneface.config import PRESETS
from models.geneface.network import Layer, Seen, build, composed, picture, places, pose_vector
from models.radiance.cameras import pixels, rays
from tests.models.geneface.corpus import CONFIG, CONFIG_MLP
from tests.models.head.corpus import camera, made_poses

FORMS = pytest.mark.parametrize("config", [CONFIG, CONFIG_MLP], ids=["grid", "mlp"])
AWARE = replace(CONFIG, head_aware=True, head_seen=0.5)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lively(config):
    """As if trained a while: in a new grid nothing is anywhere."""
    torso = build(config)
    with torch.no_grad():
        if config.form == "grid":
            torso.grid.embeddings.uniform_(-1, 1)
        else:
            torso.coarse.density_out.bias.fill_(1), torso.fine.density_out.bias.fill_(2)
        torso.first_pose.copy_(torch.from_numpy(made_poses(3)[2]))
    return torso.eval()


def made_seen(torso, frame=3, seed=0):
    """Of every fifth pixel of a moment."""
    random, size = torch.Generator().manual_seed(seed), torso.config.image_size
    opacity = torch.rand(size * size, 1, generator=random)
    head = torch.cat([torch.rand(size * size, 3, generator=random) * opacity, opacity], dim=1)
    of_first = rays(torso.first_pose, camera(size)["focal"], camera(size)["center"], pixels(size, size))
    seen = Seen(
        places(size, torch.arange(size * size)),
        pose_vector(torch.from_numpy(made_poses(1, seed)).float(), torso.config.form)[0],
        head,
        torch.rand(size * size, 3, generator=random),
        frame,
        of_first,
        torch.randn(30, torso.config.audio_width, generator=random),
    )
    return seen.part(slice(None, None, 5))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_presets_have_the_size_of_the_release():
    """geneface.md §4.6 and §13, official_checkpoints.md §4.6 and §4.8."""
    may = PRESETS["may"]
    grid, mlp, aware = (build(config) for config in (may, PRESETS["may_mlp"], replace(may, head_aware=True)))
    assert [count(part) for part in (grid.deform, grid.paint, grid.grid)] == [10_880, 5_504, 1_111_040]
    assert count(grid) == 4_344_011 - 3_112_587
    assert count(mlp) == 1_325_565 and len(list(mlp.parameters())) == 82
    assert aware.deform[0].weight.shape == (64, 120) and aware.paint[0].weight.shape == (32, 152)
    assert count(aware) - count(grid) == 16 * 64 + 16 * 32 + 80 + 544 + 528


def random_poses(number):
    """Camera-from-head, the head turned by up to 60 degrees and more, about a metre away."""
    random = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (number, 1, 1))
    poses[:, :3, :3] = np.diag([1, -1, -1]) @ Rotation.from_euler("xyz", random.uniform(-1.2, 1.2, (number, 3))).as_matrix()
    poses[:, :3, 3] = random.normal([0, 0, 1], 0.2, (number, 3))
    return poses


def test_the_pose_of_the_grid_form_is_the_releases():
    """geneface.md §4.1: of the camera to the head, y up and z back, rows y z x, the second and third columns negated, times 4."""
    poses = random_poses(50)
    cameras = np.linalg.inv(poses)  # head from camera, OpenCV's axes
    cameras[:, :3, 1:3] *= -1  # as the release's transforms have it
    ngp = cameras[:, [1, 2, 0]]
    ngp[:, :, 1:3] *= -1
    expected = np.concatenate([Rotation.from_matrix(ngp[:, :, :3]).as_euler("XYZ"), 4 * ngp[:, :, 3]], axis=1)
    assert np.allclose(pose_vector(torch.from_numpy(poses), "grid").numpy(), expected, atol=1e-9)


def test_the_pose_of_the_release_s_tracker_is_taken_as_the_release_takes_it():
    """geneface.md §7.1: a head R x + t before a camera that looks along -z; c2w is [Rᵀ | -Rᵀ t]."""
    random = np.random.default_rng(1)
    rotation, shift = Rotation.from_euler("XYZ", random.normal(0, 0.3, 3)).as_matrix(), np.array([0.02, -0.05, -0.7])
    ours = np.eye(4)
    ours[:3] = np.diag([1, -1, -1]) @ np.column_stack([rotation, shift])
    c2w = np.column_stack([rotation.T, -rotation.T @ shift])
    ngp = c2w[[1, 2, 0]] * [1, -1, -1, 4]
    expected = [*Rotation.from_matrix(ngp[:, :3]).as_euler("XYZ"), *ngp[:, 3]]
    assert np.allclose(pose_vector(torch.from_numpy(ours[None]), "grid")[0].numpy(), expected, atol=1e-9)
    expected = [*Rotation.from_matrix(c2w[:, :3]).as_euler("xyz"), *c2w[:, 3]]
    assert np.allclose(pose_vector(torch.from_numpy(ours[None]), "mlp")[0].numpy(), expected, atol=1e-9)


def test_the_pose_of_the_mlp_form_is_of_the_camera_in_the_heads_frame():
    straight = np.eye(4)
    straight[:3, :3], straight[:3, 3] = np.diag([1, -1, -1]), [0, 0, 0.8]
    vector = pose_vector(torch.from_numpy(straight[None]), "mlp")
    assert torch.allclose(vector, torch.tensor([[0, 0, 0, 0, 0, 0.8]], dtype=torch.double), atol=1e-12), "the camera is in front"
    poses = random_poses(50)
    turned = Rotation.from_matrix(np.linalg.inv(poses)[:, :3, :3] @ np.diag([1, -1, -1])).as_euler("xyz")
    assert np.allclose(pose_vector(torch.from_numpy(poses), "mlp")[:, :3].numpy(), turned, atol=1e-9)


def test_places_run_down_then_right():
    assert places(5, torch.tensor([0, 4, 20, 24, 11])).tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1], [0, -0.5]]


def layer_of(opacity):
    return Layer(opacity * torch.tensor([[0.2, 0.4, 0.6]]), torch.tensor([opacity]), None)


def seen_of(opacity, head=(0.9, 0.5, 0.1), behind=(0.3, 0.7, 0.2)):
    of_head = torch.tensor([[*(opacity * value for value in head), opacity]])
    return Seen(torch.zeros(1, 2), torch.zeros(6), of_head, torch.tensor([behind]), 0, None, None)


@pytest.mark.parametrize(
    "in_front, head, torso, expected",
    [
        (False, 1.0, 1.0, (0.9, 0.5, 0.1)),  # the head hides all
        (False, 1.0, 0.3, (0.9, 0.5, 0.1)),
        (False, 0.0, 1.0, (0.2, 0.4, 0.6)),
        (True, 1.0, 1.0, (0.2, 0.4, 0.6)),  # the torso hides all
        (True, 0.4, 1.0, (0.2, 0.4, 0.6)),
        (True, 1.0, 0.0, (0.9, 0.5, 0.1)),
        (False, 0.0, 0.0, (0.3, 0.7, 0.2)),  # nothing is before the background
        (True, 0.0, 0.0, (0.3, 0.7, 0.2)),
        (False, 0.5, 0.0, (0.6, 0.6, 0.15)),
        (True, 0.5, 0.0, (0.6, 0.6, 0.15)),
        (False, 0.5, 0.5, (0.575, 0.525, 0.25)),  # (0.9, 0.5, 0.1) over (0.25, 0.55, 0.4)
        (True, 0.5, 0.5, (0.4, 0.5, 0.375)),  # (0.2, 0.4, 0.6) over (0.6, 0.6, 0.15)
    ],
)
def test_layers_lie_over_each_other_in_their_order(in_front, head, torso, expected):
    assert composed(layer_of(torso), in_front, seen_of(head))[0].tolist() == pytest.approx(expected, abs=1e-6)


@FORMS
def test_a_torso_is_between_nothing_and_all(config):
    torso = lively(config)
    seen = made_seen(torso)
    with torch.no_grad():
        layer = torso(seen, None)
    assert layer.color.shape == (205, 3) and layer.opacity.shape == (205,)
    assert layer.opacity.min() >= 0 and layer.opacity.max() <= 1 and layer.opacity.std() > 0.001
    assert layer.color.min() > -1e-5 and (layer.color <= layer.opacity[:, None] + 1e-5).all()
    assert torso.in_front == (config.form == "mlp") and (layer.coarse is not None) == torso.in_front


@FORMS
def test_a_picture_does_not_depend_on_how_many_pixels_are_painted_at_once(config, monkeypatch):
    torso = lively(config)
    seen = made_seen(torso)
    with torch.no_grad():
        whole = composed(torso(seen, None), torso.in_front, seen)
        monkeypatch.setitem(network_module.AT_ONCE, config.form, 60)
        assert torch.allclose(picture(torso, seen), whole, atol=1e-5)


@FORMS
def test_a_torso_moves_with_the_head(config):
    torso = lively(config)
    seen = made_seen(torso)
    with torch.no_grad():
        still, moved = torso(seen, None), torso(seen._replace(pose=seen.pose + 0.2), None)
    assert (still.opacity - moved.opacity).abs().max() > 1e-4


def test_each_frame_of_training_has_a_code_and_further_ones_share_them():
    torso = lively(CONFIG)
    with torch.no_grad():
        own, other, shared = (torso(made_seen(torso, frame), None).opacity for frame in (3, 4, 43))
    assert torch.equal(own, shared) and not torch.equal(own, other)


def test_without_shading_a_colour_is_that_of_the_place_it_was_moved_from():
    """The pose moves pixels, and does nothing to what they look like."""
    torso = lively(replace(CONFIG, shaded=False))
    seen = made_seen(torso)
    with torch.no_grad():
        still, turned = torso(seen, None), torso(seen._replace(pose=seen.pose + 0.2), None)
        assert not torch.equal(still.color, turned.color)
        for layer in torso.deform:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
        assert torch.equal(torso(seen, None).color, torso(seen._replace(pose=seen.pose + 0.2), None).color)


def test_whitened_poses_of_training_are_uncorrelated_and_of_one_scale():
    """Though each is almost a sum of others, as the camera's place about a head that turns is."""
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(400, 3, generator=generator) * torch.tensor([0.05, 0.02, 0.3])
    poses = torch.cat([free, free @ torch.randn(3, 3, generator=generator)], dim=1)
    poses += torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]) + 0.1 * poses.std(0) * torch.randn(400, 6, generator=generator)
    torso = build(replace(CONFIG, whitening=1e-6))
    torso.whiten(poses)
    whitened = (poses - torso.pose_mean) @ torso.pose_whitening
    assert torch.allclose(torch.cov(whitened.mT), torch.eye(6), atol=0.01)


def test_a_place_that_is_a_small_difference_of_large_numbers_is_learnt_only_when_whitened():
    """A few steps of Adam find the direction in which poses differ least, if it is as large as the others."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(200, 1, generator=generator)
    place = torch.randn(200, 1, generator=generator)  # of the head in the picture: what moves the torso
    poses = torch.cat([turn, turn + 0.02 * place, *(torch.randn(200, 4, generator=generator),)], dim=1)

    def error(whitening):
        torso = build(replace(CONFIG, whitening=whitening))
        if whitening:
            torso.whiten(poses)
        linear = torch.zeros(6, 1, requires_grad=True)
        adam = torch.optim.Adam([linear], 0.01)
        for _ in range(300):
            loss = (((poses - torso.pose_mean) @ torso.pose_whitening) @ linear - place).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        return loss.item()

    assert error(1e-6) < 0.02 and error(0.0) > 0.5


def test_frames_one_after_another_may_share_a_code():
    torso = lively(replace(CONFIG, frames_per_code=3))
    with torch.no_grad():
        shown = [torso(made_seen(torso, frame), None).opacity for frame in (3, 5, 6)]
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])


def test_a_torso_that_is_not_aware_of_the_head_does_not_see_it():
    torso = lively(CONFIG)
    seen = made_seen(torso)
    with torch.no_grad():
        assert torch.equal(torso(seen, None).color, torso(seen._replace(head=0 * seen.head), None).color)


def test_a_torso_that_is_aware_of_the_head_sees_it_always_when_generating_and_half_of_the_time_in_training():
    torso = lively(AWARE)
    seen = made_seen(torso)
    with torch.no_grad():
        shown, hidden = torso(seen, None).opacity, torso(seen._replace(head=0 * seen.head), None).opacity
        assert not torch.equal(shown, hidden) and all(torch.equal(torso(seen, None).opacity, shown) for _ in range(5))
        drawn = [torso(seen, torch.Generator().manual_seed(seed)).opacity for seed in range(40)]
    seen_so = sum(torch.equal(opacity, shown) for opacity in drawn)
    assert 10 < seen_so < 30 and seen_so + sum(torch.equal(opacity, hidden) for opacity in drawn) == 40


def test_the_mlp_form_looks_between_two_planes_before_the_first_camera():
    """And as far from its axis as anywhere: depths, not distances, as in the release."""
    torso, seen_at = lively(CONFIG_MLP), []
    torso.fine.register_forward_hook(lambda _, given, made: seen_at.append(given[0][:, :3]))
    torso.coarse.register_forward_hook(lambda _, given, made: seen_at.append(given[0][:, :3]))
    with torch.no_grad():
        torso(made_seen(torso), None)
    for points in seen_at:
        depths = (points @ torso.first_pose[:3, :3].T + torso.first_pose[:3, 3])[:, 2]
        assert CONFIG_MLP.near - 1e-4 < depths.min() < CONFIG_MLP.near + 1e-4 and depths.max() < CONFIG_MLP.far + 1e-4
    assert [len(points) for points in seen_at] == [205 * 3, 205 * 7], "the last sample is what is behind"


def test_the_mlp_form_hears_and_needs_to():
    torso = lively(CONFIG_MLP)
    seen = made_seen(torso)
    with torch.no_grad():
        assert not torch.equal(torso(seen, None).color, torso(seen._replace(sound=seen.sound + 1), None).color)
    for less in (seen._replace(sound=None), seen._replace(rays=None)):
        with pytest.raises(ValueError, match="needs rays and sound"):
            torso(less, None)
