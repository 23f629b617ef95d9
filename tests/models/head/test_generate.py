import numpy as np
import pytest
import torch

from models.checkpoint import BadCheckpoint, write_checkpoint
from models.head import generate
from models.head.examples import Camera, motion_windows
from models.head.generate import load, paint, painted
from models.head.network import build
from tests.models.head.corpus import CONFIG, CONFIG_MLP, camera, made_poses

CAMERA = Camera(**camera(16))
FORMS = pytest.mark.parametrize("config", [CONFIG, CONFIG_MLP], ids=["grid", "mlp"])


def a_head(config):
    torch.manual_seed(0)
    head = build(config)
    with torch.no_grad():
        head.mean_X.fill_(0.5), head.std_X.fill_(2.0)
        if config.form == "grid":
            head.position_grid.embeddings.uniform_(-1, 1), head.ambient_grid.embeddings.uniform_(-1, 1)
    return head.eval().requires_grad_(False)


@pytest.fixture
def moment():
    random = np.random.default_rng(0)
    return random.normal(size=(3, 204)).astype(np.float32), made_poses(3), random.integers(0, 256, (16, 16, 3), np.uint8)


@FORMS
def test_frames_are_those_of_the_rays(monkeypatch, moment, config):
    """Each pixel by its own ray, the motion normalised and held at its ends; whatever the number of rays at once."""
    head, (motion, poses, background) = a_head(config), moment
    frames = paint(head, motion, poses, CAMERA, background)
    assert frames.shape == (3, 16, 16, 3) and frames.dtype == np.uint8 and frames.std() > 1
    code = head.codes(torch.from_numpy(motion_windows((motion - 0.5) / 2, 5, "edge")[2:]))[0]
    y, x = 9, 5
    rotation, shift = poses[2, :3, :3], poses[2, :3, 3]
    direction = rotation.T @ [(x - 7.5) / (2.9 * 16), (y - 7.5) / (2.9 * 16), 1]
    ray = torch.tensor(np.stack([-rotation.T @ shift, direction / np.linalg.norm(direction)]), dtype=torch.float32)
    behind = torch.from_numpy(background[y, x] / np.float32(255))[None]
    (color,) = head.render(ray[:1], ray[1:], code, behind, None).color
    assert np.abs(frames[2, y, x] - 255 * color.numpy()).max() <= 0.6

    monkeypatch.setitem(generate.CHUNK, config.form, 50)
    assert np.abs(paint(head, motion, poses, CAMERA, background).astype(int) - frames).max() <= 1


def test_the_background_may_change_and_what_is_without_it_does_not(moment):
    head, (motion, poses, background) = a_head(CONFIG), moment
    behind = np.stack([background, 255 - background, np.zeros_like(background)])
    frames = paint(head, motion, poses, CAMERA, behind)
    assert np.array_equal(frames[0], paint(head, motion, poses, CAMERA, background)[0])
    kinds = [list(painted(head, motion, poses, CAMERA, pictures)) for pictures in (behind, [background] * 3)]
    for index, pictures in enumerate(zip(*kinds, strict=True)):
        alone = []
        for picture, grounds in zip(pictures, (behind, [background] * 3), strict=True):
            ground = torch.from_numpy(grounds[index]) / 255
            alone.append(picture.color - (1 - picture.opacity[..., None]) * ground)
        assert torch.allclose(*alone, atol=1e-5) and pictures[0].samples.max() > 0


def test_lists_of_different_lengths_are_refused(moment):
    motion, poses, background = moment
    with pytest.raises(ValueError, match="shorter"):
        paint(a_head(CONFIG), motion, poses[:2], CAMERA, background)


def test_a_head_in_training_mode_is_refused(moment):
    motion, poses, background = moment
    with pytest.raises(ValueError, match=r"call head.eval\(\)"):
        paint(a_head(CONFIG).train(), motion, poses, CAMERA, background)


@FORMS
def test_a_checkpoint_holds_all_that_is_needed(tmp_path, moment, config):
    head, (motion, poses, background) = a_head(config), moment
    if config.form == "grid":
        head.renew_occupancy(torch.zeros(64), torch.Generator().manual_seed(0))
    write_checkpoint(tmp_path / "checkpoint", head, config, "# card\n")
    again = load(tmp_path / "checkpoint")
    assert not again.training and again.config == config
    assert np.array_equal(paint(again, motion, poses, CAMERA, background), paint(head, motion, poses, CAMERA, background))
    (tmp_path / "checkpoint" / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="does not exist"):
        load(tmp_path / "checkpoint")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@FORMS
def test_a_gpu_paints_the_same(moment, config):
    head, (motion, poses, background) = a_head(config), moment
    frames = paint(head, motion, poses, CAMERA, background)
    assert np.abs(paint(head.cuda(), motion, poses, CAMERA, background).astype(int) - frames).max() <= 2
