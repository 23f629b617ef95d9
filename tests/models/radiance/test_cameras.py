import numpy as np
import pytest
import torch

from models.landmarks import CANONICAL_P3
from models.radiance.cameras import CANONICAL, RELEASE, Scene, box_span, pixels, project, rays

FOCAL, CENTER = 130.0, (63.5, 61.0)


def pose_of(seed=0):
    """A camera-from-head somewhere before the face, turned a little."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    rotation = rotation * rotation.det().sign()
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = rotation, torch.tensor([0.05, -0.02, 0.6])
    return pose


def test_pixels_go_along_the_rows():
    assert pixels(3, 2).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_rays_go_through_their_pixels():
    places = 128 * torch.rand(50, 2, dtype=torch.float64)
    origins, directions = rays(pose_of(), FOCAL, CENTER, places)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(50, dtype=torch.float64))
    for distance in (0.1, 0.6, 3.0):
        seen, depth = project(pose_of(), FOCAL, CENTER, origins + distance * directions)
        assert torch.allclose(seen, places, atol=1e-9)
        assert ((depth > 0) & (depth <= distance + 1e-12)).all()


def test_a_head_before_a_camera_that_looks_at_it():
    pose = torch.tensor(np.diag([1.0, -1.0, -1.0, 1.0]))
    pose[2, 3] = 0.6
    origins, directions = rays(pose, FOCAL, CENTER, torch.tensor([CENTER], dtype=torch.float64))
    assert torch.allclose(origins, torch.tensor([[0.0, 0.0, 0.6]], dtype=torch.float64))
    assert torch.allclose(directions, torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64))
    # Up is up, the person's left is on the right.
    seen, depth = project(pose, FOCAL, CENTER, torch.tensor([[0.1, 0.1, 0.1]], dtype=torch.float64))
    assert seen.tolist() == [pytest.approx([63.5 + 26, 61 - 26])] and depth.tolist() == [pytest.approx(0.5)]


def test_the_release_s_rays():
    """Its poses are those of cameras of OpenGL in the head frame; its pixels' middles are at halves."""
    camera = pose_of(1).inverse()
    release = camera.clone()
    release[:3, 1:3] *= -1
    ngp = torch.eye(4, dtype=torch.float64)
    for row, axis in enumerate((1, 2, 0)):
        ngp[row] = release[axis] * torch.tensor([1, -1, -1, 4])
    places = pixels(4, 3).double()
    inward = torch.cat(((places + 0.5 - torch.tensor(CENTER)) / FOCAL, torch.ones(12, 1, dtype=torch.float64)), 1)
    expected = torch.nn.functional.normalize(inward, dim=-1) @ ngp[:3, :3].T

    origins, directions = rays(pose_of(1), FOCAL, (CENTER[0] - 0.5, CENTER[1] - 0.5), places)
    assert torch.allclose(RELEASE.turn(directions), expected)
    assert torch.allclose(RELEASE.enter(origins), ngp[:3, 3].expand(12, 3))


@pytest.mark.parametrize("scene", [RELEASE, CANONICAL])
def test_scenes_are_rigid_but_for_their_scale(scene):
    points = torch.randn(20, 3, dtype=torch.float64)
    inside = scene.enter(points)
    assert torch.allclose(torch.cdist(inside, inside), scene.scale * torch.cdist(points, points))
    assert torch.allclose(scene.leave(inside), points)
    assert torch.allclose(scene.enter(points + points.flip(0)) - inside, scene.scale * scene.turn(points.flip(0)))
    triple = scene.turn(torch.eye(3))
    assert torch.linalg.det(triple) == pytest.approx(1)  # no mirror


def test_the_release_s_box_in_metres():
    corners = RELEASE.leave(torch.tensor(RELEASE.box).view(2, 3))
    assert corners.tolist() == [pytest.approx([-0.25, -0.25, -0.125]), pytest.approx([0.25, 0.25, 0.125])]


def test_our_box_holds_a_head():
    head = [[-0.11, -0.13, -0.15], [0.11, 0.20, 0.09]]
    points = CANONICAL.enter(torch.cat((torch.tensor(CANONICAL_P3) / 100, torch.tensor(head))))
    least, greatest = torch.tensor(CANONICAL.box).view(2, 3)
    assert ((points > least) & (points < greatest)).all()


@pytest.mark.parametrize(
    "wrong", [{"scale": 0.0}, {"box": (0.0, 0, 0, 1, 1, 0)}, {"box": (-2.0, 0, 0, 1, 1, 1)}, {"center": (0.0, 0.0)}]
)
def test_no_scene(wrong):
    with pytest.raises(ValueError, match="scene"):
        Scene(**wrong)


def test_where_rays_meet_a_box():
    box = torch.tensor([-1.0, -0.5, -1.0, 1.0, 0.5, 1.0])
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [-3, 0.6, 0], [0, 0, 3], [0, 0.2, -3]])
    directions = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0.6, 0.8]])
    near, far = box_span(origins, directions, box, 0.05)
    assert near[:2].tolist() == [2, pytest.approx(0.05)] and far[:2].tolist() == [4, 0.5]
    assert (far[2:] <= near[2:]).all()  # beside, behind, past


def test_rays_and_boxes_against_many_small_steps():
    origins = 2 * torch.randn(200, 3, dtype=torch.float64)
    directions = torch.nn.functional.normalize(-origins + 0.8 * torch.randn(200, 3, dtype=torch.float64), dim=-1)
    box = torch.tensor([-1.0, -0.5, -1.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    near, far = box_span(origins, directions, box, 0.05)
    distance = torch.linspace(0.0501, 12, 4000, dtype=torch.float64)
    places = origins[:, None] + distance[:, None] * directions[:, None]
    inside = ((places > box[:3]) & (places < box[3:])).all(-1)
    assert torch.equal(inside, (distance > near[:, None]) & (distance < far[:, None]))
