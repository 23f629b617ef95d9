"""Checkpoints laid out as the authors' are, made of random numbers: what is converted computes the same, or is refused."""

import json
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.checkpoint import BadCheckpoint
from models.geneface.config import PRESETS
from models.geneface.generate import load, paint
from models.geneface.network import Seen, build, composed, pose_vector
from models.geneface.official import HEADS, background_of, convert, first_pose_of, grid_buffers, layout, read_official
from models.head.examples import Camera
from models.released import NotTheRelease
from tests.models.geneface import reference
from tests.models.geneface.corpus import write_postnet
from tests.models.head import reference as head_reference
from tests.models.head.corpus import camera, made_poses, png

SMALL = {"levels": 4, "finest": 512, "log2_rows": 12}
GRID = replace(PRESETS["may"], image_size=16, frames=9, **SMALL)
MLP = replace(PRESETS["may_mlp"], image_size=16, coarse_samples=5, fine_samples=6)
GRID_HEAD = replace(HEADS["may"], image_size=16, hidden=16, frame_codes=9, cells=8, **SMALL)
MLP_HEAD = replace(HEADS["may_mlp"], image_size=16, hidden=16, coarse_samples=4, fine_samples=4)
BOX = torch.tensor([-1.0, -0.5, -1.0, 1.0, 0.5, 1.0])


def randomised(shapes, seed=0):
    random = torch.Generator().manual_seed(seed)
    scales = {name: 0.5 if len(shape) < 2 else 1.5 / shape[1] ** 0.5 for name, shape in shapes.items()}
    return {name: scales[name] * torch.randn(shape, generator=random) for name, shape in shapes.items()}


def offsets(dimensions):
    return torch.tensor([0, *accumulate(head_reference.rows(dimensions, 4, 512, 12))]).int()


def grid_state(aware=False):
    """What the release's task of the grid form saves: torso and head in one."""
    state = randomised(head_reference.grid_layout(hidden=16, codes=9, cells=8, **SMALL))
    state |= {"aabb_train": BOX, "aabb_infer": BOX, "step_counter": torch.zeros(16, 2).int()}
    state |= {"density_grid": torch.ones(1, 512), "density_bitfield": torch.full((64,), 255, dtype=torch.uint8)}
    state |= {"position_embedder.offsets": offsets(3), "ambient_embedder.offsets": offsets(2)}
    state |= randomised(reference.grid_layout(codes=9, cells=8, aware=aware, **SMALL), 1)
    return {"model": state | {"torso_embedder.offsets": offsets(2), "density_grid_torso": torch.rand(64)}}


def mlp_state():
    torso = randomised(reference.mlp_layout())
    for name in ("model_coarse", "model_fine"):
        torso[f"{name}.density_out_linear.bias"] += 3  # that there is something
    return {"model": torso, "head_model": randomised(head_reference.mlp_layout(16), 1)}


def saved(path, state):
    torch.save({"state_dict": state, "epoch": 0, "global_step": 9, "optimizer_states": [{"state": {}}]}, path)
    return path


def flat(state):
    return {f"{child}.{name}": tensor for child, found in state.items() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """PostNet, a background, and the film's cameras, of which the first matters."""
    folder = tmp_path_factory.mktemp("beside")
    write_postnet(folder / "postnet")
    (folder / "background.png").write_bytes(png(np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)))
    frames = [{"img_id": index, "transform_matrix": made_camera(index).tolist()} for index in range(3)]
    (folder / "transforms_train.json").write_text(json.dumps({"focal_len": 1200.0, "cx": 8.0, "cy": 8.0, "frames": frames}))
    return folder


def made_camera(seed):
    """(4, 4) head from camera, as the release has it: y up, z back."""
    camera_44 = np.eye(4)
    camera_44[:3, :3] = Rotation.from_euler("xyz", np.random.default_rng(seed).normal(0, 0.2, 3)).as_matrix()
    camera_44[:3, 3] = camera_44[:3, :3] @ [0.01, -0.02, 0.6]
    return camera_44


def test_the_presets_have_the_tensors_of_the_release():
    """official_checkpoints.md §4.6 and §4.8."""
    for aware, count in ((False, 10), (True, 16)):
        torso = build(replace(PRESETS["may"], head_aware=aware))
        ours = {theirs: tuple(torso.state_dict()[name].shape) for name, theirs in layout(torso).items()}
        buffers = {name: tuple(tensor.shape) for name, tensor in grid_buffers(torso, HEADS["may"].cells).items()}
        expected = reference.grid_layout(aware=aware)
        assert ours | buffers == expected and len(expected) == count
    torso = build(PRESETS["may_mlp"])
    expected = reference.mlp_layout()
    assert {theirs: tuple(torso.state_dict()[name].shape) for name, theirs in layout(torso).items()} == expected
    assert len(expected) == 82 and sum(np.prod(shape) for shape in expected.values()) == 1_325_565


@pytest.mark.parametrize("aware", [False, True])
def test_the_grid_form_computes_what_the_release_does(tmp_path, aware):
    state = grid_state(aware)
    torso = read_official(saved(tmp_path / "model.ckpt", flat(state) if aware else state), GRID, cells=8).double()
    assert torso.config.head_aware == aware
    weights = {name: tensor.double() for name, tensor in state["model"].items()}
    random = np.random.default_rng(0)
    place, head, behind = (torch.from_numpy(random.uniform(0, 1, (12, width))) for width in (2, 4, 3))
    pose = torch.from_numpy(random.normal(size=6))
    layer = torso(Seen(2 * place - 1, pose, head, behind, 5, None, None), None)
    for index in range(12):
        given = head[index] if aware else None
        opacity, color = reference.grid_pixel(weights, 2 * place[index] - 1, pose, 5, given, SMALL)
        assert torch.allclose(layer.opacity[index], opacity, atol=1e-6) and torch.allclose(
            layer.color[index], opacity * color, atol=1e-6
        )
    assert layer.opacity.std() > 0.02


def test_the_mlp_form_computes_what_the_release_does(tmp_path, beside):
    """The whole of it: from the sound, the pose and the head's colours to the picture's."""
    state = mlp_state()
    torso = read_official(saved(tmp_path / "model.ckpt", state), MLP, cells=8).double()
    first = first_pose_of(beside / "transforms_train.json")
    torso.first_pose.copy_(first)
    weights = {name: tensor.double() for name, tensor in state["model"].items()}
    random = np.random.default_rng(0)
    sound, head, behind = (torch.from_numpy(random.uniform(0, 1, shape)) for shape in ((30, 29), (2, 4), (2, 3)))
    head[:, :3] *= head[:, 3:]
    now, pixels = made_camera(7), np.array([[-0.1, 0.05], [0.2, 0.25]])  # right and down, at a depth of 1
    pose = np.eye(4)
    pose[:3, :3] = np.diag([1, -1, -1]) @ now[:3, :3].T
    pose[:3, 3] = -pose[:3, :3] @ now[:3, 3]

    began = made_camera(0)
    directions = torch.from_numpy(np.column_stack([pixels[:, 0], -pixels[:, 1], [-1, -1]]) @ began[:3, :3].T)
    origin = torch.from_numpy(began[:3, 3])
    rays = origin.expand(2, 3), directions / directions.norm(dim=1, keepdim=True)
    seen = Seen(torch.zeros(2, 2), pose_vector(torch.from_numpy(pose[None]), "mlp")[0], head, behind, 0, rays, sound)
    painted = composed(torso(seen, None), True, seen)

    windows = torch.stack([sound[2 * window : 2 * window + 16] for window in range(8)])
    euler, place = torch.from_numpy(Rotation.from_matrix(now[:3, :3]).as_euler("xyz")), torch.from_numpy(now[:3, 3])
    for index in range(2):
        under = head[index, :3] + (1 - head[index, 3]) * behind[index]
        condition = reference.mlp_condition(weights, windows, euler, place, under)
        expected = reference.mlp_pixel(weights, origin, directions[index], condition, under, 0.3, 0.9, 5, 6)
        assert torch.allclose(painted[index], expected, atol=1e-5) and (expected - under).abs().max() > 1e-3


def test_a_converted_file_of_the_grid_form_paints(tmp_path, beside):
    file = saved(tmp_path / "model_ckpt_steps_250000.ckpt", grid_state())
    convert(file, GRID, GRID_HEAD, beside / "postnet", beside / "background.png", None, tmp_path / "checkpoint")
    assert "model_ckpt_steps_250000.ckpt" in (tmp_path / "checkpoint" / "card.md").read_text()
    person = load(tmp_path / "checkpoint")
    state = grid_state()["model"]
    assert torch.equal(person.torso.frames, state["torso_individual_codes"])
    assert torch.equal(person.head.frame_codes, state["individual_embeddings"]) and person.head.occupancy.occupied.all()
    assert torch.equal(person.torso.background, background_of(beside / "background.png", 16))
    assert len(person.voice.network.motion_NX) == 30
    (frame,) = paint(person, np.zeros((1, 204), np.float32), made_poses(1), Camera(**camera(16)), None)
    assert frame.shape == (16, 16, 3) and frame.std() > 1


def test_a_converted_file_of_the_mlp_form_paints(tmp_path, beside):
    file = saved(tmp_path / "model.ckpt", flat(mlp_state()))
    others = beside / "postnet", beside / "background.png", beside / "transforms_train.json"
    convert(file, MLP, MLP_HEAD, *others, tmp_path / "checkpoint")
    person = load(tmp_path / "checkpoint")
    assert torch.equal(person.head.coarse.color_out.bias, mlp_state()["head_model"]["model_coarse.color_out_linear.bias"])
    assert torch.equal(person.torso.first_pose, first_pose_of(others[2]))
    (frame,) = paint(person, np.zeros((1, 204), np.float32), made_poses(1), Camera(**camera(16)), np.zeros((2, 29), np.float32))
    assert frame.shape == (16, 16, 3) and frame.std() > 1


def test_the_first_camera_is_as_ours_are(beside):
    ours = first_pose_of(beside / "transforms_train.json").double().numpy()
    point = np.array([0.03, 0.05, 0.04, 1])
    x, y, z, _ = np.linalg.inv(made_camera(0)) @ point
    assert np.allclose(ours @ point, [x, -y, -z, 1], atol=1e-6) and z < 0


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda model: model.pop("torso_individual_codes"), r"lacks model.torso_individual_codes \(9, 8\)"),
        (lambda model: model.pop("density_grid_torso"), r"lacks model.density_grid_torso \(64,\)"),
        (lambda model: model.update({"torso_lips.weight": torch.zeros(1)}), "has model.torso_lips.weight, which is nowhere"),
        (
            lambda model: model.update({"torso_deform_net.net.0.weight": torch.zeros(64, 120)}),
            r"has model.torso_deform_net.net.0.weight \(64, 120\), not \(64, 104\)",
        ),
        (lambda model: model.update({"torso_embedder.offsets": torch.zeros(5).int()}), "has model.torso_embedder.offsets"),
        (
            lambda model: model.update(randomised(reference.linear_layout("head_color_weights_encoder", 4))),
            r"torso_deform_net.net.0.weight \(64, 104\), not \(64, 120\)",
        ),
    ],
)
def test_differences_are_named(tmp_path, change, message):
    state = grid_state()
    change(state["model"])
    with pytest.raises(NotTheRelease, match=message):
        read_official(saved(tmp_path / "altered.ckpt", state), GRID, cells=8)


def test_what_is_neither_the_torso_s_nor_the_head_s_is_refused(tmp_path, beside):
    others = beside / "postnet", beside / "background.png", None, tmp_path / "checkpoint"
    for name, message in (("lips", "has lips.weight, which is nowhere"), ("model", "has weight, which is nowhere")):
        state = grid_state()
        state.setdefault(name, {})["weight"] = torch.zeros(1)
        with pytest.raises(NotTheRelease, match=message):
            convert(saved(tmp_path / "altered.ckpt", state), GRID, GRID_HEAD, *others)
    state = grid_state()
    state["model"].pop("density_bitfield")
    with pytest.raises(NotTheRelease, match=r"altered\.ckpt.*\n.*lacks density_bitfield"):
        convert(saved(tmp_path / "altered.ckpt", state), GRID, GRID_HEAD, *others)
    with pytest.raises(NotTheRelease, match=r"lacks model\.aud_net"):
        read_official(tmp_path / "altered.ckpt", MLP, cells=8)
    assert not (tmp_path / "checkpoint").exists()


def test_what_the_file_does_not_hold_must_fit(tmp_path, beside):
    file, voice, behind = saved(tmp_path / "model.ckpt", grid_state()), beside / "postnet", beside / "background.png"
    out = tmp_path / "checkpoint"
    with pytest.raises(BadCheckpoint, match="does not exist"):
        convert(file, GRID, GRID_HEAD, tmp_path / "nothing", behind, None, out)
    with pytest.raises(NotTheRelease, match="has 16 x 16 pixels, not 32 x 32 as the film"):
        background_of(behind, 32)
    for content in (b"", b"no picture", behind.read_bytes()[:200]):
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(NotTheRelease, match=r"broken\.png is no picture"):
            convert(file, GRID, GRID_HEAD, voice, tmp_path / "broken.png", None, out)
    with pytest.raises(ValueError, match="is for the paper's form"):
        convert(file, GRID, GRID_HEAD, voice, behind, beside / "transforms_train.json", out)
    with pytest.raises(ValueError, match="is for the paper's form, which needs it"):
        convert(file, MLP, MLP_HEAD, voice, behind, None, out)
    assert not out.exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "has no frames"),
        ("[]", "has no frames"),
        ('{"frames": []}', "has no frames"),
        ('{"frames": [{"transform_matrix": [["a"]]}]}', "has no frames"),
        ('{"frames": [{"transform_matrix": [[1, 2], [3]]}]}', "has no frames"),
        ('{"frames": [{"transform_matrix": [[1, 2], [3, 4]]}]}', "does not turn and move alone"),
        (json.dumps({"frames": [{"transform_matrix": (2 * np.eye(4)).tolist()}]}), "does not turn and move alone"),
        (json.dumps({"frames": [{"transform_matrix": np.diag([1.0, 1, -1, 1]).tolist()}]}), "does not turn and move alone"),
        (json.dumps({"frames": [{"transform_matrix": (np.nan * np.eye(4)).tolist()}]}), "does not turn and move alone"),
        ("[" * 100_000, "has no frames"),
    ],
)
def test_cameras_that_are_none_are_refused(tmp_path, content, message):
    (tmp_path / "transforms_train.json").write_text(content)
    with pytest.raises(NotTheRelease, match=f"transforms_train.json has .*{message.removeprefix('has ')}"):
        first_pose_of(tmp_path / "transforms_train.json")
