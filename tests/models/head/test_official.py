"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch

from models.head.config import PRESETS
from models.head.generate import load
from models.head.network import build
from models.head.official import convert, grid_buffers, layout, read_official
from models.released import NotTheRelease
from tests.models.head import reference

SMALL = {"levels": 4, "finest": 512, "log2_rows": 12}
GRID = replace(PRESETS["may"], hidden=16, frame_codes=9, cells=8, **SMALL)
MLP = replace(PRESETS["may_mlp"], hidden=16)
BOX = torch.tensor([-1.0, -0.5, -1.0, 1.0, 0.5, 1.0])


def randomised(shapes):
    torch.manual_seed(0)
    return {name: torch.randn(shape) * (0.5 if len(shape) < 2 else 1.5 / shape[1] ** 0.5) for name, shape in shapes.items()}


@pytest.fixture
def grid_state():
    state = randomised(reference.grid_layout(hidden=16, codes=9, cells=8, **SMALL))
    for name, dimensions in (("position", 3), ("ambient", 2)):
        state[f"{name}_embedder.offsets"] = torch.tensor([0, *accumulate(reference.rows(dimensions, 4, 512, 12))]).int()
    occupied = torch.zeros(512, dtype=torch.bool)
    occupied[0b000_000_110] = True  # in Morton order, bits z y x: x 0, y 1, z 1
    bits = occupied.reshape(64, 8).int() * 2 ** torch.arange(8)
    return state | {
        "aabb_train": BOX, "aabb_infer": BOX, "step_counter": torch.zeros(16, 2).int(), "density_bitfield": bits.sum(1).byte(),
        "density_grid": torch.arange(512.0)[None],
    }  # fmt: skip


def saved(path, content):
    torch.save(content, path)
    return path


def test_the_presets_have_the_tensors_of_the_release():
    shapes = reference.grid_layout()
    assert len(shapes) == 42 and reference.rows(3, 16, 2048, 16) == [4920, 13824, 32768, *[65536] * 13]
    assert reference.rows(2, 16, 2048, 16) == [296, 576, 1024, 1936, 3600, 6728, 12776, 24032, 45800, *[65536] * 7]
    with torch.device("meta"):
        head, mlp = build(PRESETS["may"]), build(PRESETS["may_mlp"])
        ours = {theirs: tuple(head.state_dict()[name].shape) for name, theirs in layout(head).items()}
        buffers = {name: tuple(tensor.shape) for name, tensor in grid_buffers(head).items()}
    assert ours | buffers == shapes
    shapes = reference.mlp_layout()
    assert len(shapes) == 76
    assert {theirs: tuple(mlp.state_dict()[name].shape) for name, theirs in layout(mlp).items()} == shapes


@pytest.mark.parametrize("nested", [True, False])
def test_the_grid_form_computes_what_the_release_does(tmp_path, grid_state, nested):
    content = {"model": grid_state} if nested else {f"model.{name}": tensor for name, tensor in grid_state.items()}
    content = {"state_dict": content, "epoch": 0, "global_step": 9, "optimizer_states": [{"state": {}}]}
    convert(saved(tmp_path / "model_ckpt_steps_9.ckpt", content), GRID, tmp_path / "checkpoint")
    head = load(tmp_path / "checkpoint").double()
    weights = {name: tensor.double() for name, tensor in grid_state.items()}
    motion, points = torch.randn(5, 204).double(), torch.rand(6, 3).double() * 2 - 1
    code = head.codes(motion[None])[0]
    assert torch.allclose(code, reference.code(weights, "cond_prenet", "cond_att_net", motion), atol=1e-10)
    densities, geometry, ambient = head.geometry(points, code)
    for index, point in enumerate(points):
        expected = reference.grid_point(weights, point, code, 4, 512, 12)
        assert torch.allclose(densities[index], expected[0], rtol=1e-8) and torch.allclose(
            geometry[index], expected[1], atol=1e-8
        )
        assert torch.allclose(ambient[index], expected[2], atol=1e-10) and expected[2].abs().max() > 0.01
    assert head.occupancy.occupied.nonzero().tolist() == [[0, 1, 1]] and head.occupancy.density[1, 0, 0] == 1
    assert not head.mean_X.any() and torch.equal(head.frame_codes, weights["individual_embeddings"])


def test_the_mlp_form_computes_what_the_release_does(tmp_path):
    state = randomised(reference.mlp_layout(16))
    convert(saved(tmp_path / "model.ckpt", {"state_dict": {"model": state}}), MLP, tmp_path / "checkpoint")
    head, weights = load(tmp_path / "checkpoint").double(), {name: tensor.double() for name, tensor in state.items()}
    motion = torch.randn(5, 204).double()
    code = head.codes(motion[None])[0]
    assert torch.allclose(code, reference.code(weights, "lm_encoder", "lmatt_encoder", motion), atol=1e-10)
    seen = []
    for name in ("coarse", "fine"):
        getattr(head, name).register_forward_hook(lambda _, given, made, name=name: seen.append((name, given, made)))
    direction = torch.tensor([[0.6, 0.0, -0.8]]).double()
    head.render(-0.7 * direction, direction, code, torch.zeros(1, 3).double(), None)
    for name, (position, _), (color, density) in seen:
        for index in (0, 20, 40):
            expected = reference.mlp_point(weights, f"model_{name}", position[index, :3], direction[0], code)
            assert torch.allclose(color[index], expected[0], atol=1e-10) and torch.allclose(
                density[index], expected[1], atol=1e-8
            )
    assert [name for name, _, _ in seen] == ["coarse", "fine"] and len(seen[0][2][0]) == 63


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("color_net.net.1.weight"), r"lacks color_net.net.1.weight \(3, 16\)"),
        (lambda state: state.pop("density_bitfield"), r"lacks density_bitfield \(64,\)"),
        (
            lambda state: state.update({"torso_individual_codes": torch.zeros(9, 8)}),
            "has torso_individual_codes, which is nowhere",
        ),
        (
            lambda state: state.update({"individual_embeddings": torch.zeros(8, 4)}),
            r"individual_embeddings \(8, 4\), not \(9, 4\)",
        ),
        (lambda state: state.update({"aabb_infer": 2 * BOX}), "has aabb_infer"),
        (lambda state: state.update({"density_bitfield": torch.zeros(64)}), "density_bitfield of torch.float32, not of bytes"),
        (lambda state: state.update({"ambient_embedder.offsets": torch.zeros(5).int()}), "has ambient_embedder.offsets"),
        (lambda state: state.update({"sigma_net.net.0.weight": [1.0]}), "has sigma_net.net.0.weight where tensors should be"),
    ],
)
def test_differences_are_named(tmp_path, grid_state, change, message):
    change(grid_state)
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "altered.ckpt", {"state_dict": {"model": grid_state}}), GRID)


def test_a_file_of_another_form_or_kind_is_refused(tmp_path, grid_state):
    file = saved(tmp_path / "model.ckpt", {"state_dict": {"model": grid_state}})
    with pytest.raises(NotTheRelease, match=r"lacks model_fine.density_out_linear.weight"):
        read_official(file, MLP)
    for content in ([1], {"model": grid_state}):
        with pytest.raises(NotTheRelease, match="has no state_dict"):
            read_official(saved(tmp_path / "other.ckpt", content), GRID)
