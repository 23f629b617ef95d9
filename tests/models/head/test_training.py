import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from torch.utils.data import default_collate

from data.media.video import decode_frames
from data.shardset import ShardSet, npy_array
from models.given import Given
from models.head import training
from models.head.config import PRESETS
from models.head.examples import Camera, camera_of, decode_clip, loaders, person_of
from models.head.generate import load, paint
from models.head.network import build as build_network
from models.head.training import (
    HeadTraining,
    ambient_mask,
    before_anything,
    binary_entropy,
    box_mask,
    build,
    code_of,
    difference,
    drawn_pixels,
    objective,
    shot_of,
    surely_head,
)
from models.landmarks import motion_of
from models.perceptual import NoBackbone, Perceptual
from models.trainer import Job, read_progress, train
from tests.models.head.corpus import (
    CONFIG,
    CONFIG_MLP,
    DARK,
    WALL,
    camera,
    made_clip,
    made_poses,
    vertices_of,
    write_corpus,
)

FORMS = pytest.mark.parametrize("config", [CONFIG, CONFIG_MLP], ids=["grid", "mlp"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    shards = write_corpus(tmp_path_factory.mktemp("head") / "train", [5, 4])
    return Given(shards, shards)


@pytest.fixture(scope="module")
def example(given):
    return decode_clip(made_clip(0, 5), CONFIG, person_of(given.train)).example(2)


def trainer(folder, steps, *callbacks):
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, val_check_interval=2,
        check_val_every_n_epoch=None, callbacks=list(callbacks),
    )  # fmt: skip


def lively(network):
    """As if trained a while: in a new grid nothing happens."""
    with torch.no_grad():
        for grid in (network.position_grid, network.ambient_grid):
            grid.embeddings.uniform_(-0.5, 0.5)
    return network


def test_entropy_is_in_bits():
    values = binary_entropy(torch.tensor([0.5, 0.25, 0.0, 1.0]))
    assert values[:2].tolist() == pytest.approx([1.0, 0.811278], abs=1e-5) and 0 < values[2:].max() < 2e-4


def test_rays_are_of_the_pixels_asked_for(example):
    """Rays through pixels hit what is there: the picture at the mouth is dark, the corner is wall."""
    x, y = 7, 20
    shot = shot_of(example, torch.tensor([y * 32 + x]), CONFIG)
    assert torch.equal(shot.target[0], example.image[y, x] / 255) and torch.equal(shot.background[0], example.behind[y, x] / 255)
    forward = example.pose[:3, :3] @ shot.directions[0]
    focal, center = float(example.focal), example.center
    assert torch.allclose(forward[:2] / forward[2], (torch.tensor([x, y]) - center) / focal, atol=1e-5)
    assert torch.allclose(example.pose[:3, :3] @ shot.origins[0] + example.pose[:3, 3], torch.zeros(3), atol=1e-5)


def test_the_share_of_rays_in_the_face(example):
    face = box_mask(example.face, 32, 32).flatten()
    assert 0 < face.sum() < 1024 and face.sum() == np.prod((example.face[2:] - example.face[:2]).numpy())
    random = torch.Generator().manual_seed(0)
    inside = face[drawn_pixels(example, replace(CONFIG, face_share=0.75, rays=400), random)]
    assert inside.sum() == 300
    inside = face[drawn_pixels(example, replace(CONFIG, face_share=0.0, rays=4000), random)].float().mean()
    assert abs(inside - face.float().mean()) < 0.05
    everywhere = example._replace(face=torch.tensor([0, 0, 32, 32]))
    assert len(drawn_pixels(everywhere, replace(CONFIG, face_share=0.75, rays=40), random)) == 40


def test_the_releases_rectangle_is_normally_empty(example):
    assert torch.equal(ambient_mask(example, CONFIG), box_mask(example.face, 32, 32))
    assert not ambient_mask(example, replace(CONFIG, ambient_box="release")).any()


def test_the_loss_of_the_grid_form(example):
    config = replace(CONFIG, entropy_weight=0.1, ambient_weight=0.7, ambient_steps=1000, face_share=0.5)
    network = lively(build_network(config))
    pixels = drawn_pixels(example, config, torch.Generator().manual_seed(3))
    shot = shot_of(example, pixels, config)
    code = code_of(network, config, shot, 500)
    loss, color, told = objective(network, config, shot, code, 500, torch.Generator().manual_seed(4))
    rays = shot.origins, shot.directions, code, shot.background
    painted = network.render(*rays, torch.Generator().manual_seed(4), int(example.number))
    p = painted.opacity.clamp(1e-5, 1 - 1e-5)
    entropy = -(p * p.log2() + (1 - p) * (1 - p).log2()).sum() / 96
    outside = ~box_mask(example.face, 32, 32).flatten()[pixels]
    ambient = painted.ambient[outside].sum() / 96
    expected = (painted.color - shot.target).square().mean() + 0.1 * entropy + 0.5 * 0.7 * ambient
    assert ambient > 0 and torch.equal(color, painted.color)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and told["ambient"].item() == pytest.approx(ambient.item())
    # The penalty is full in the end, and with the release's rectangle it meets the face too.
    end = objective(network, config, shot, code, 5000, torch.Generator().manual_seed(4)).loss
    assert (end - loss).item() == pytest.approx(0.35 * ambient.item(), rel=1e-3)
    released = shot_of(example, pixels, replace(config, ambient_box="release"))
    more = objective(network, config, released, code, 500, torch.Generator().manual_seed(4))
    assert more.told["ambient"].item() == pytest.approx(painted.ambient.mean().item()) and more.loss > loss


def test_the_loss_of_the_mlp_form(example):
    network = build_network(CONFIG_MLP)
    shot = shot_of(example, drawn_pixels(example, CONFIG_MLP, torch.Generator().manual_seed(3)), CONFIG_MLP)
    code = code_of(network, CONFIG_MLP, shot, 0)
    judged = objective(network, CONFIG_MLP, shot, code, 0, torch.Generator().manual_seed(4))
    rays = shot.origins, shot.directions, code, shot.background
    both = network.render_both(*rays, torch.Generator().manual_seed(4))
    errors = [(color - shot.target).square().mean() for color in (both.color, both.coarse_color)]
    assert judged.loss.item() == pytest.approx(sum(errors).item(), rel=1e-5)
    judged.loss.backward()
    assert all(field.color_out.weight.grad.any() for field in (network.coarse, network.fine))


def test_the_weighting_of_windows_begins_at_its_step(example):
    config = replace(CONFIG, attention_start=3)
    network, shot = build_network(config), shot_of(example, torch.tensor([0]), config)
    assert torch.equal(code_of(network, config, shot, 2), network.codes(example.motion[None], attend=False)[0])
    assert torch.equal(code_of(network, config, shot, 3), network.codes(example.motion[None])[0])


def test_behind_the_head_alone_another_colour_is_drawn(example):
    surely = surely_head(example)
    assert 0 < surely.sum() < example.head.sum() and not (surely & ~example.head).any()
    y, x = (~example.head).nonzero().T
    inner = surely.nonzero()
    assert (inner[:, None] - torch.stack([y, x], 1)[None]).abs().amax(-1).min() == 3, "two pixels are left out at its edge"
    shot = shot_of(example, torch.arange(1024), CONFIG)
    drawn = before_anything(shot, surely.flatten(), torch.Generator().manual_seed(0))
    changed = (drawn.background != shot.background).any(1)
    assert torch.equal(changed, surely.flatten()) and torch.equal(drawn.target, shot.target)


class Steps(Callback):
    """What the density of cells, and the pixels' loss of lips, were after each step."""

    def __init__(self):
        self.densities = []

    def on_train_batch_end(self, trainer, module, *_):
        self.densities.append(module.network.occupancy.density.clone())


def test_space_is_looked_at_every_so_often_until_the_lips_are_taken(tmp_path, given):
    config = replace(CONFIG, renew_every=2, lip_share=0.5, steps=8)
    module, steps = build(config, given), Steps()
    trainer(tmp_path, 8, steps).fit(module, *loaders(config, given))
    changed = [not torch.equal(one, other) for one, other in zip(steps.densities, steps.densities[1:], strict=False)]
    assert steps.densities[0].max() > 0, "at the very first step too"
    assert changed == [False, True, False, False, False, False, False]


def test_every_other_step_of_the_last_ones_takes_the_square_around_the_lips(given, monkeypatch):
    """And LPIPS, of pictures in [-1, 1]; or in [0, 1], as the release has it."""
    perceptual, config = Perceptual(), replace(CONFIG, lip_share=0.5, perceptual_weight=0.5, backbone="vgg16.pth", behind="seen")
    config = replace(config, lips="alone")
    module = HeadTraining(build_network(config), perceptual)
    batch = next(iter(loaders(config, given)[0]))
    monkeypatch.setattr(HeadTraining, "global_step", 3)
    loss = module.training_step(batch, 0)

    x0, y0, x1, y1 = batch.lips[0].tolist()
    assert (y1 - y0, x1 - x0) == (16, 16)
    target = batch.image[0, y0:y1, x0:x1].permute(2, 0, 1)[None] / 255
    y, x = torch.meshgrid(torch.arange(y0, y1), torch.arange(x0, x1), indexing="ij")
    shot = shot_of(type(batch)(*(tensor[0] for tensor in batch)), (32 * y + x).flatten(), config)
    code = module.network.codes(shot.motion[None])[0]
    # The rays' starts are drawn by the step's own numbers: what is left is the same with any of them to a few thousandths.
    judged = objective(module.network, config, shot, code, 3, torch.Generator().manual_seed(0))
    made = judged.color.reshape(16, 16, 3).permute(2, 0, 1)[None]
    expected = judged.loss + 0.5 * perceptual(2 * made - 1, 2 * target - 1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=0.02) and expected > 1.2 * judged.loss
    unit = difference(perceptual, replace(config, perceptual_range="release"), judged.color, shot.target, 16, 16)
    assert unit.item() == pytest.approx(perceptual(made, target).mean().item(), rel=1e-4)
    loss.backward()
    assert not any(parameter.grad is not None for parameter in perceptual.parameters())

    monkeypatch.setattr(HeadTraining, "global_step", 2)
    losses = {module.training_step(batch, 0).item() for _ in range(2)}
    assert len(losses) == 1 and max(losses) < expected, "rays from all over, and the same again"


def test_a_perceptual_loss_is_no_part_of_the_state(given, tmp_path):
    module = HeadTraining(build_network(CONFIG), Perceptual())
    assert all(name.startswith("network.") for name in module.state_dict())
    with pytest.raises(NoBackbone, match=r"vgg16-397923af\.pth"):
        build(replace(PRESETS["may"], image_size=32, cells=16, levels=2), given)


def test_learning_rates_of_the_release(given):
    module = HeadTraining(build_network(replace(CONFIG, learning_rate=5e-4, decay_steps=10)), None)
    configured = module.configure_optimizers()
    adam, falling = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    network = module.network
    rate_of = {id(parameter): group["lr"] for group in adam.param_groups for parameter in group["params"]}
    assert len(rate_of) == len(list(network.parameters()))
    assert rate_of[id(network.position_grid.embeddings)] == rate_of[id(network.ambient_grid.embeddings)] == pytest.approx(5e-3)
    assert rate_of[id(network.window_attention.linear.bias)] == pytest.approx(2.5e-3)
    assert rate_of[id(network.frame_codes)] == rate_of[id(network.density_net[0].weight)] == 5e-4
    for _ in range(10):
        adam.step(), falling.step()
    assert adam.param_groups[0]["lr"] == pytest.approx(5e-5) and adam.defaults["eps"] == 1e-15


def test_a_head_is_built_in_the_units_of_its_person(given):
    module, person = build(CONFIG, given), person_of(given.train)
    assert torch.equal(module.network.mean_X, torch.from_numpy(person.mean))
    assert torch.equal(module.network.std_X, torch.from_numpy(person.std))
    with pytest.raises(ValueError, match="has 9 frames, and 8 have codes: set frame_codes"):
        build(replace(CONFIG, frame_codes=8), given)


def test_cells_that_no_camera_saw_are_never_sampled(given):
    """A picture of 48² pixels sees 17 cm to each side of a head a metre away: not the box's 20."""
    occupancy = build(replace(CONFIG, cells=32), given).network.occupancy
    density = occupancy.density.permute(2, 0, 1)  # x, y, z
    assert (density[16, 16] >= 0).any() and (density[:2, -1, 16:] < 0).all()


@FORMS
def test_training_resumes_with_everything(tmp_path, given, config):
    batches = loaders(config, given)
    first, short = build(config, given), trainer(tmp_path, 3)
    short.fit(first, *batches)
    short.save_checkpoint(last := tmp_path / "last.ckpt")

    second = build(replace(config, seed=5), given)
    trainer(tmp_path, 3).validate(second, batches[1], ckpt_path=last, weights_only=True, verbose=False)
    for (name, ours), theirs in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    if config.form == "grid":
        assert first.network.occupancy.density.max() > 0

    longer = trainer(tmp_path, 4)
    longer.fit(second, *batches, ckpt_path=last, weights_only=True)
    assert longer.global_step == 4
    (adam,) = longer.optimizers
    assert {float(state["step"]) for state in adam.state.values()} == {4.0}
    assert adam.param_groups[0]["lr"] == pytest.approx(config.learning_rate * 0.1 ** (4 / config.decay_steps))


def test_a_batch_of_frames_is_their_mean(given):
    module = HeadTraining(build_network(CONFIG_MLP), None).eval()
    batch = next(iter(loaders(replace(CONFIG_MLP, batch_size=3), given)[0]))
    told = {}
    module.log = lambda name, value, **_: told.setdefault(name, []).append(float(value))
    module.requires_grad_(False).validation_step(batch, 0)
    whole = told.pop("val_loss")[0]
    for index in range(3):
        module.validation_step(default_collate([type(batch)(*(tensor[index] for tensor in batch))]), index)
    assert whole == pytest.approx(np.mean(told["val_loss"]), rel=1e-5)


@FORMS
def test_a_training_leaves_a_checkpoint_that_paints_as_it_told(tmp_path, given, config):
    """Every pixel's ray in validation, about: its error is that of the pictures."""
    config = replace(config, steps=20, val_every=10, rays=400)
    work, out = tmp_path / "work", tmp_path / "checkpoint"
    train(Job("head", asdict(config), str(given.train), str(given.val), {}, str(work), str(out)))
    told = json.loads((work / "summary.json").read_text())
    rows = read_progress(work / "progress.jsonl")
    assert told["steps"] == 20 and told["val_loss"] == [row["val_loss"] for row in rows if "val_loss" in row][-1]
    head, errors = load(out), []
    assert head.config == config and not any(parameter.requires_grad for parameter in head.parameters())
    for clip in ShardSet(given.val).clips():
        filmed = decode_clip(clip, config, person_of(given.train))
        motion, poses = motion_of(npy_array(clip.members["vertices.npy"])), npy_array(clip.members["pose.npy"])
        painted = paint(head, motion, poses, camera_of(clip, 32 / 48), filmed.behind)
        errors += list(np.square(painted / 255.0 - filmed.images / 255.0).mean((1, 2, 3)))
    assert np.mean(errors) == pytest.approx(told["val_loss"], rel=0.2)


def test_lips_beside_the_other_rays_are_judged_as_a_picture_all_the_same(given, monkeypatch):
    config = replace(CONFIG, lip_share=0.5, lips="beside", perceptual_weight=0.5, backbone="vgg16.pth", behind="seen")
    module, seen = HeadTraining(build_network(config), Perceptual()), []
    batch = next(iter(loaders(config, given)[0]))
    monkeypatch.setattr(HeadTraining, "global_step", 3)
    monkeypatch.setattr(training, "objective", lambda *given: seen.append(given[2]) or objective(*given))
    monkeypatch.setattr(training, "difference", lambda *given: seen.append(given[3]) or difference(*given))
    module.training_step(batch, 0)
    shot, target = seen[:2]
    assert len(shot.target) == config.rays + 16 * 16
    x0, y0, x1, y1 = batch.lips[0].tolist()
    assert torch.allclose(target, batch.image[0, y0:y1, x0:x1].flatten(0, 1) / 255)


@pytest.mark.slow
@FORMS
def test_a_head_that_was_seen_is_painted_again_and_opens_its_mouth(tmp_path, config):
    """20 frames of 48 x 48: above 25 dB; and the more the mouth's landmarks open, the larger what is dark. (The mlp form comes to
    the mouth after many times as many steps.)"""
    small = {"image_size": 48, "steps": 500, "val_every": 250, "decay_steps": 500, "log_every": 50, "frames_per_clip": 20}
    size = {"levels": 6, "finest": 128, "hidden": 32, "cells": 32, "rays": 1024, "lip_share": 0.2}
    if config.form == "mlp":
        size = {"hidden": 64, "coarse_samples": 16, "fine_samples": 16, "rays": 256, "steps": 800, "decay_steps": 800}
    config = replace(config, **small | size)
    shards = write_corpus(tmp_path / "train", [20])
    train(Job("head", asdict(config), str(shards), str(shards), {}, str(tmp_path / "work"), str(tmp_path / "checkpoint")))
    head, clip = load(tmp_path / "checkpoint"), made_clip(0, 20)
    filmed = decode_clip(clip, config, person_of(shards))
    motion, poses = motion_of(npy_array(clip.members["vertices.npy"])), npy_array(clip.members["pose.npy"])
    painted = paint(head, motion, poses, camera_of(clip), filmed.behind)
    error = np.square(painted / 255.0 - decode_frames(clip.members["mp4"]) / 255.0).mean((1, 2, 3))
    assert (-10 * np.log10(error)).mean() > 25
    if config.form == "mlp":
        return

    straight, dark = made_poses(1), []
    straight[:, :3, :3] = np.diag([1, -1, -1])
    for opening in (0.0, 0.012, 0.024, 0.035):  # metres, each as if it had been held
        held = motion_of(vertices_of([opening]))
        frame = paint(head, held, straight, Camera(**camera()), np.broadcast_to(WALL, (48, 48, 3)))[0]
        dark.append(int((frame.mean(axis=-1)[24:40, 16:32] < DARK).sum()))
    assert dark == sorted(dark) and dark[-1] >= dark[0] + 10
