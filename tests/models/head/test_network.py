from dataclasses import replace

import pytest
import torch

from models.head.config import PRESETS
from models.head.network import GridHead, build
from tests.models.head.corpus import CONFIG, CONFIG_MLP, made_poses

FORMS = pytest.mark.parametrize("config", [CONFIG, CONFIG_MLP], ids=["grid", "mlp"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def rays_ahead(count):
    """Origins and directions of rays that look at the head from a metre before it, and hit it."""
    origins = torch.tensor([0.0, 0.0, 1.0]).expand(count, 3)
    aims = torch.rand(count, 3) * 0.06 - 0.03
    return origins, torch.nn.functional.normalize(aims - origins, dim=1)


def test_the_grid_form_has_the_parameters_of_the_release():
    with torch.device("meta"):
        head = GridHead(PRESETS["may"])
    counts = {
        "position_grid": 1_806_960, "ambient_grid": 1_111_040, "ambient_net": 28_928, "density_net": 41_088, "color_net": 19_328,
        "window_encoder": 49_600, "window_attention": 3_643,
    }  # fmt: skip
    assert {name: parameters(getattr(head, name)) for name in counts} == counts
    assert head.frame_codes.shape == (13_000, 4) and parameters(head) == sum(counts.values()) + 52_000 == 3_112_587


def test_the_mlp_form_has_the_parameters_of_the_release():
    with torch.device("meta"):
        head = build(PRESETS["may_mlp"])
    assert parameters(head) == 1_244_931 and len(list(head.parameters())) == 76


@FORMS
def test_a_code_is_of_the_frames_around_and_without_attention_of_the_middle_one(config):
    head = build(config)
    motion = torch.randn(2, 5, 204, requires_grad=True)
    codes = head.codes(motion)
    assert codes.shape == (2, 64)
    (felt,) = torch.autograd.grad(codes[0].square().sum(), motion)
    assert felt[0].abs().amax(1).min() > 0 and not felt[1].any()
    alone = head.codes(motion, attend=False)
    assert torch.allclose(alone, head.window_encoder(motion[:, 2:3]), atol=1e-6)
    (felt,) = torch.autograd.grad(alone[0].square().sum(), motion)
    assert felt[0, 2].any() and not felt[0, [0, 1, 3, 4]].any()


def test_motion_is_normalised_by_the_persons():
    head = build(CONFIG)
    head.mean_X.fill_(3.0), head.std_X.fill_(2.0)
    assert torch.equal(head.normalised(torch.full((4, 204), 7.0)), torch.full((4, 204), 2.0))


def silent(head):
    """The head with densities of next to nothing."""
    with torch.no_grad():
        if isinstance(head, GridHead):  # exp of a large negative number: the last layer has no bias
            head.density_net[2].weight.fill_(1.0), head.density_net[0].weight.fill_(1.0)
            head.position_grid.embeddings.fill_(1.0), head.density_net[4].weight.fill_(-10.0)
        else:
            for field in (head.coarse, head.fine):
                field.density_out.weight.zero_(), field.density_out.bias.fill_(-1.0)
    return head.eval()


@FORMS
def test_where_nothing_is_the_background_is_seen(config):
    head, background = silent(build(config)), torch.rand(20, 3)
    painted = head.render(*rays_ahead(20), torch.randn(64), background, None)
    assert torch.allclose(painted.color, background, atol=1e-5) and painted.opacity.max() < 1e-5
    assert (painted.samples > 0).all()


@FORMS
def test_what_is_dense_hides_the_background(config):
    head = build(config).eval()
    with torch.no_grad():
        if isinstance(head, GridHead):
            head.position_grid.embeddings.fill_(1.0)
            for layer, weight in ((0, 1.0), (2, 1.0), (4, 0.01)):
                head.density_net[layer].weight.fill_(weight)
        else:
            for field in (head.coarse, head.fine):
                field.density_out.weight.zero_(), field.density_out.bias.fill_(1e4)
    rays, code = rays_ahead(20), torch.randn(64)
    painted = [head.render(*rays, code, torch.full((20, 3), grey), None) for grey in (0.0, 1.0)]
    assert torch.allclose(painted[0].opacity, torch.ones(20), atol=1e-4)
    assert torch.allclose(painted[0].color, painted[1].color, atol=1e-4)


def test_rays_past_the_box_cost_nothing():
    head = build(CONFIG).eval()
    origins, directions = rays_ahead(6)
    painted = head.render(origins, -directions, torch.randn(64), torch.rand(6, 3), None)
    assert not painted.samples.any() and not painted.opacity.any()


def test_a_grid_that_has_looked_asks_only_where_something_is():
    """A ball of 5 cm: the cells around it stay, so that rays beside it are asked for nothing."""
    head = build(CONFIG).eval()

    def ball(positions, code):
        radius = (head.occupancy.scene.leave(positions)).norm(dim=1)
        return torch.where(radius < 0.05, 200.0, 0.0), torch.zeros(len(positions), 16), torch.zeros(len(positions), 2)

    head.geometry = ball
    head.renew_occupancy(torch.zeros(64), torch.Generator().manual_seed(0))
    origins = torch.tensor([0.0, 0.0, 1.0]).expand(2, 3)
    aims = torch.tensor([[0.0, 0.0, 0.0], [0.15, 0.1, 0.0]])
    rays = origins, torch.nn.functional.normalize(aims - origins, dim=1)
    painted = head.render(*rays, torch.zeros(64), torch.rand(2, 3), None)
    assert painted.opacity[0] > 0.999 and 0 < painted.samples[0] <= 16 and painted.samples[1] == 0


def test_a_frames_own_code_changes_its_colours_alone():
    head = build(CONFIG).eval()
    rays, code, background = rays_ahead(12), torch.randn(64), torch.rand(12, 3)
    first, same, other = (head.render(*rays, code, background, None, frame) for frame in (0, 0, 3))
    assert torch.equal(first.color, same.color) and torch.equal(first.opacity, other.opacity)
    assert (first.color - other.color).abs().max() > 1e-4


@FORMS
def test_training_draws_samples_and_generating_does_not(config):
    head = build(config)
    rays, code, background = rays_ahead(12), torch.randn(64), torch.rand(12, 3)
    with torch.no_grad():
        if isinstance(head, GridHead):
            head.position_grid.embeddings.uniform_(-1, 1)
        drawn = [head.render(*rays, code, background, torch.Generator().manual_seed(seed)).color for seed in (0, 0, 1)]
        still = [head.eval().render(*rays, code, background, None).color for _ in range(2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2]) and torch.equal(*still)


@FORMS
def test_every_weight_learns_from_a_picture(config):
    head = build(config)
    if isinstance(head, GridHead):  # a new grid has features of 1e-4: the ambient coordinates are as good as 0
        with torch.no_grad():
            head.position_grid.embeddings.uniform_(-1, 1), head.ambient_grid.embeddings.uniform_(-1, 1)
    code = head.codes(torch.randn(1, 5, 204))[0]
    painted = head.render(*rays_ahead(64), code, torch.rand(64, 3), torch.Generator().manual_seed(0), frame=1)
    (painted.color.square().mean() + painted.ambient.mean()).backward()
    for name, parameter in head.named_parameters():
        if not name.startswith("coarse"):
            assert parameter.grad is not None and parameter.grad.any(), name


def test_the_mlp_form_looks_at_the_head_however_far_the_camera():
    """Samples lie within `reach` of the head's origin."""
    head, seen = build(replace(CONFIG_MLP, reach=0.2)).eval(), []
    head.fine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, :3]))
    for distance in (0.6, 2.0):
        pose = torch.from_numpy(made_poses(1)[0]).float()
        origin = -(pose[:3, :3].T @ torch.tensor([0.0, 0.0, distance]))
        head.render(origin[None], -origin[None] / distance, torch.zeros(64), torch.zeros(1, 3), None)
    assert all(points.norm(dim=1).max() <= 0.2 + 1e-5 for points in seen) and len(seen) == 2
