import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, IterableDataset

from data.shardset import Clip, npy_array
from models.geneface.examples import Below, Example, loaders
from models.geneface.generate import load
from models.geneface.network import build as build_network
from models.geneface.network import composed
from models.geneface.training import PaintedTorso, build, drawn_pixels, objective, seen_at
from models.given import Given
from models.trainer import Job, read_progress, train
from tests.models.geneface.corpus import CONFIG, CONFIG_MLP, SIDE, made_clip, write_corpus
from tests.models.head.corpus import WALL, png, write_set

FORMS = pytest.mark.parametrize("config", [CONFIG, CONFIG_MLP], ids=["grid", "mlp"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("geneface"), [5, 4])


def example_of(config, given):
    return Below.of(config, given.train).decode(made_clip(0, 5)).example(3)


def trainer(folder, steps, **more):
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **more,
    )  # fmt: skip


def test_what_a_pixel_is_painted_from(given):
    """At row 20, column 7 of the frame."""
    example = example_of(CONFIG, given)
    seen = seen_at(build(CONFIG, given).network, example, torch.tensor([20 * SIDE + 7]))
    assert seen.place[0].tolist() == pytest.approx([2 * 20 / 31 - 1, 2 * 7 / 31 - 1]) and seen.frame == 3
    assert torch.equal(seen.head[0], example.head[20, 7] / 255) and torch.equal(seen.behind[0], example.background[20, 7] / 255)
    assert (seen.rays, seen.sound) == (None, None)


def test_other_films_have_the_code_of_the_last_training_frame(given, monkeypatch):
    """Where the torso has drifted to by the end of the film, after which a held-out stretch begins."""
    training = build(CONFIG, given)
    assert training.network.stand_in == 8  # of five frames and four
    shown = []
    monkeypatch.setattr(training, "log", lambda *_, **__: None)
    forward = training.network.forward
    monkeypatch.setattr(training.network, "forward", lambda seen, generator: shown.append(seen.frame) or forward(seen, generator))
    training.validation_step(Example(*(tensor[None] for tensor in example_of(CONFIG, given))), 0)
    assert set(shown) == {8}


def test_the_rays_of_the_mlp_form_are_the_first_frame_s_camera_s(given):
    example, torso = example_of(CONFIG_MLP, given), build(CONFIG_MLP, given).network
    seen = seen_at(torso, example, torch.tensor([20 * SIDE + 7]))
    first = torch.from_numpy(npy_array(made_clip(0, 5).members["pose.npy"])[0])
    assert torch.equal(torso.first_pose, first) and not torch.equal(first, example.pose)
    forward = first[:3, :3] @ seen.rays[1][0]
    assert torch.allclose(forward[:2] / forward[2], (torch.tensor([7.0, 20.0]) - example.center) / example.focal, atol=1e-5)
    assert torch.equal(seen.sound, example.sound)


def test_the_loss_of_the_grid_form(given):
    """Of the torso over the background, whatever the head hides (geneface.md §4.6)."""
    config = replace(CONFIG, entropy_weight=0.3)
    torso, example = build(config, given).network, example_of(config, given)
    pixels = torch.arange(SIDE**2)[::7]
    seen = seen_at(torso, example, pixels)
    layer = torso(seen, torch.Generator().manual_seed(0))
    errors, entropies = [], []
    for index, pixel in enumerate(pixels.tolist()):
        y, x = divmod(pixel, SIDE)
        alpha, behind = layer.opacity[index].item(), example.background[y, x] / 255
        errors.append(((layer.color[index] + (1 - alpha) * behind - example.behind[y, x] / 255) ** 2).mean().item())
        entropies.append(-alpha * np.log2(alpha) - (1 - alpha) * np.log2(1 - alpha))
    loss = objective(torso, layer, seen, example, pixels)
    assert loss.item() == pytest.approx(np.mean(errors) + 0.3 * np.mean(entropies), rel=1e-4)


def test_the_loss_of_the_mlp_form(given):
    """The whole frame, of both fields."""
    torso, example = build(CONFIG_MLP, given).network, example_of(CONFIG_MLP, given)
    pixels = torch.arange(SIDE**2)[::17]
    seen = seen_at(torso, example, pixels)
    layer = torso(seen, torch.Generator().manual_seed(0))
    frame = example.image.flatten(0, 1)[pixels] / 255
    expected = (composed(layer, True, seen) - frame).square().mean() + (layer.coarse - frame).square().mean()
    loss = objective(torso, layer, seen, example, pixels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert all(field.color_out.weight.grad.any() for field in (torso.coarse, torso.fine))


def test_pixels_are_drawn_from_the_lower_half_as_often_as_is_said():
    random = torch.Generator().manual_seed(0)
    drawn = drawn_pixels(replace(CONFIG, pixels=400, lower_half=0.95), random)
    assert (drawn >= SIDE**2 // 2).sum() == 380 and drawn.min() >= 0 and drawn.max() < SIDE**2
    drawn = drawn_pixels(replace(CONFIG, pixels=4000, lower_half=0.0), random)
    assert abs((drawn >= SIDE**2 // 2).float().mean() - 0.5) < 0.05 and len(drawn.unique()) > 900


def test_rates_of_the_release(given):
    config = replace(CONFIG, learning_rate=5e-4, grid_learning_rate=5e-3, learning_rate_decay="exponential")
    module = PaintedTorso(build_network(config), {})
    configured = module.configure_optimizers()
    adam = configured["optimizer"]
    rates = {id(parameter): group["initial_lr"] for group in adam.param_groups for parameter in group["params"]}
    assert len(rates) == len(list(module.parameters())) and adam.defaults["eps"] == 1e-15
    assert rates.pop(id(module.network.grid.embeddings)) == 5e-3 and set(rates.values()) == {5e-4}
    assert len(PaintedTorso(build_network(CONFIG_MLP), {}).configure_optimizers().param_groups) == 1


def test_a_torso_knows_the_background_as_most_films_have_it(given, tmp_path):
    clips = [made_clip(index, 2) for index in range(3)]
    odd = clips[1].members | {"background.png": png(np.full((48, 48, 3), 255, np.uint8))}
    write_set(tmp_path / "train", [clips[0], Clip(clips[1].key, odd), clips[2]])
    for name in ("head", "postnet"):
        (tmp_path / name).symlink_to(given.train.parent / name)
    torso = build(CONFIG, Given(tmp_path / "train", given.val)).network
    assert (torso.background.numpy() == WALL).all()


class After(IterableDataset):
    """Batches from some step on."""

    def __init__(self, batches, first):
        self.batches, self.first = batches, first

    def __iter__(self):
        return iter(self.batches[self.first :])


@FORMS
def test_a_training_that_was_killed_is_as_one_that_was_not(tmp_path, given, config):
    config = replace(config, head_aware=config.form == "grid", learning_rate_decay="cosine", steps=30)
    endless = iter(loaders(config, given)[0])
    batches = [next(endless) for _ in range(6)]
    torch.manual_seed(3)
    whole = build(config, given)
    start = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    trainer(tmp_path, 6).fit(whole, DataLoader(After(batches, 0), None))

    killed, short = build(config, given), trainer(tmp_path, 3)
    killed.load_state_dict(start)
    short.fit(killed, DataLoader(After(batches, 0), None))
    short.save_checkpoint(last := tmp_path / "last.ckpt")
    torch.manual_seed(77)
    resumed = build(config, given)
    trainer(tmp_path, 6).fit(resumed, DataLoader(After(batches, 3), None), ckpt_path=last, weights_only=True)
    moved = 0
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
        moved += not torch.equal(ours, start[name])
    assert moved > 5


def test_a_few_steps_lower_the_loss(tmp_path, given):
    """On a person made by code, whose torso is a shirt."""
    config = replace(CONFIG, steps=60, pixels=512, learning_rate=5e-3, grid_learning_rate=2e-2)
    module, (batches, validation) = build(config, given), loaders(config, given)
    (before,) = trainer(tmp_path, 1).validate(module, validation, verbose=False)
    trainer(tmp_path, 60, limit_val_batches=0).fit(module, batches)
    (after,) = trainer(tmp_path, 1).validate(module, validation, verbose=False)
    assert after["val_loss"] < 0.5 * before["val_loss"]


def test_a_few_steps_lower_the_loss_of_the_mlp_form(given):
    """On a torso that fills the lower half. (One that fills less may vanish, in the release as here: geneface.md §3.3.)"""
    config = replace(CONFIG_MLP, lower_half=1.0, pixels=24)
    torso, example = build(config, given).network, example_of(config, given)
    example.image[SIDE // 2 :] = torch.tensor([200, 40, 60], dtype=torch.uint8)
    adam, losses, random = torch.optim.Adam(torso.parameters(), 1e-3), [], torch.Generator().manual_seed(0)
    for _ in range(24):
        pixels = drawn_pixels(config, random)
        seen = seen_at(torso, example, pixels)
        loss = objective(torso, torso(seen, random), seen, example, pixels)
        adam.zero_grad(), loss.backward(), adam.step()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


def test_mixed_precision(tmp_path, given):
    config = replace(CONFIG, precision="bf16-mixed", head_aware=True)
    module = build(config, given)
    with torch.no_grad():
        module.network.paint[-1].weight.mul_(100)  # opacities of 0 and of 1
    trainer(tmp_path, 2, precision="bf16-mixed", limit_val_batches=0).fit(module, loaders(config, given)[0])
    assert all(torch.isfinite(parameter).all() and parameter.dtype == torch.float32 for parameter in module.parameters())


def test_a_training_leaves_a_checkpoint_with_all_that_is_below(tmp_path, given):
    work, out = tmp_path / "work", tmp_path / "checkpoint"
    job = Job("geneface", asdict(CONFIG), str(given.train), str(given.val), {}, str(work), str(out))
    train(Job(**json.loads(json.dumps(asdict(job)))))
    told = json.loads((work / "summary.json").read_text())
    rows = read_progress(work / "progress.jsonl")
    assert told["steps"] == 6 and [row["step"] for row in rows if "val_loss" in row] == [2, 5]
    for name in ("head", "postnet", "postnet/motion"):
        for file in ("model.safetensors", "config.json", "card.md"):
            assert (out / name / file).read_bytes() == (given.train.parent / name / file).read_bytes()
    person = load(out)
    assert person.torso.config == CONFIG and person.head.config.image_size == SIDE and not person.torso.training
    assert (person.torso.background.numpy() == WALL).all()
    # Killed after its last step, it makes the same checkpoint.
    first = (out / "model.safetensors").read_bytes()
    train(job)
    assert (out / "model.safetensors").read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("aware", [False, True])
def test_a_torso_that_was_seen_is_painted_again(tmp_path, given, aware):
    """Above 40 dB over the background; it's there where the shirt is, and hardly elsewhere."""
    small = {"steps": 300, "val_every": 300, "pixels": 1024, "learning_rate": 2e-3, "grid_learning_rate": 1e-2}
    config = replace(CONFIG, head_aware=aware, **small)
    work, out = str(tmp_path / "work"), tmp_path / "checkpoint"
    train(Job("geneface", asdict(config), str(given.train), str(given.val), {}, work, str(out)))
    torso = load(out).torso
    example = Below.of(config, given.train).decode(made_clip(9, 4)).example(2)
    seen = seen_at(torso, example, torch.arange(SIDE**2))
    layer = torso(seen, None)
    painted = layer.color + (1 - layer.opacity[:, None]) * seen.behind
    assert (painted - example.behind.flatten(0, 1) / 255).square().mean() < 1e-4
    opacity = layer.opacity.view(SIDE, SIDE)
    assert opacity[-SIDE // 8 + 1 :].mean() > 0.5 and opacity[: SIDE // 2].mean() < 0.05
