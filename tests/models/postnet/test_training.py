import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer

from models.landmarks import MOUTH
from models.motion.network import STRIDE
from models.postnet.config import MAY
from models.postnet.examples import loaders
from models.postnet.generate import load
from models.postnet.training import DRAWS, DomainAdaptation, Measures, build, drawn_motion
from models.syncnet import expert
from models.trainer import Job, read_progress, train
from tests.models.postnet.corpus import CONFIG, given


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    return given(tmp_path_factory.mktemp("given"))


def trainer(folder, steps, *callbacks, **others):
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, val_check_interval=2,
        check_val_every_n_epoch=None, callbacks=list(callbacks), **others,
    )  # fmt: skip


def step_of(config, some):
    return next(iter(loaders(config, some)[0]))


def losses_apart(module, step):
    """Both losses as §2.2 has them, of two networks with an optimiser each; noise is drawn in the same order."""
    config, (voices, person) = module.config, step

    def made(batch):
        shape = len(batch.mask), module.motion.config.latent_channels, batch.mask.shape[1] // STRIDE
        with torch.no_grad():
            drawn = module.motion.sample(config.temperature * torch.randn(shape), batch.speech, batch.mask)
        return module.network(drawn, batch.mask)

    y_p, y_u = made(person), made(voices)
    sync = expert.sync_loss(module.syncnet, voices.speech, y_u, voices.mask, config.sync_clips, None)
    of_made, of_real = module.discriminator(y_u[voices.mask]), module.discriminator(person.motion[person.mask])
    error = ((y_p - person.motion) ** 2 * person.mask[..., None]).sum() / (person.mask.sum() * 204)
    generator = 0.85 * ((1 - of_made) ** 2).mean() + 0.10 * sync + 0.05 * error
    return generator, (of_made**2).mean() + ((of_real - 1) ** 2).mean()


def test_each_loss_is_the_release_s_and_reaches_its_own_network_alone(some):
    module = build(CONFIG, some)
    module.train()
    module.discriminator.eval()  # without dropout
    module.log_dict = lambda *_, **__: None
    other, step = copy.deepcopy(module), step_of(CONFIG, some)
    torch.manual_seed(1)
    loss = module.training_step(step, 0)
    loss.backward()

    torch.manual_seed(1)
    generator, discriminator = losses_apart(other, step)
    assert loss.item() == pytest.approx((generator + discriminator).item(), rel=1e-5)
    for ours, theirs, of_theirs in (
        (module.network, other.network, generator),
        (module.discriminator, other.discriminator, discriminator),
    ):
        expected = torch.autograd.grad(of_theirs, list(theirs.parameters()), retain_graph=True)
        for parameter, gradient in zip(ours.parameters(), expected, strict=True):
            assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
        assert any(gradient.abs().max() > 1e-4 for gradient in expected)
    assert all(parameter.grad is None for frozen in (module.motion, module.syncnet) for parameter in frozen.parameters())


def test_learning_rates_are_the_release_s(some):
    """§2.3: a user's log has 4.95e-4 and 1e-4 at step 1000."""

    def rates(config, *steps):
        schedule = build(config, some).configure_optimizers()["lr_scheduler"]["scheduler"]
        base = [group["initial_lr"] for group in schedule.optimizer.param_groups]
        return [[rate * share(step) for rate, share in zip(base, schedule.lr_lambdas, strict=True)] for step in steps]

    slow = replace(MAY, channels=(8, 8), discriminator_channels=(8,))
    warm, full, later, late = rates(slow, 499, 1000, 40_000, 250_000)
    assert warm == pytest.approx([2.5e-4, 1e-4]) and full == pytest.approx([4.954e-4, 1e-4], rel=1e-3)
    assert later == pytest.approx([5e-4 * 0.1**0.16, 5e-5]) and late == pytest.approx([5e-5, 1e-4 / 2**6])
    meant = replace(slow, learning_rate=1e-4, learning_rate_decay="none")
    assert rates(meant, 0, 39_999) == [pytest.approx([1e-4, 1e-4])] * 2


def test_gradients_are_clipped_apart(some):
    module = build(CONFIG, some)
    optimizer = module.configure_optimizers()["optimizer"]
    for scale, network in ((100.0, module.network), (1e-3, module.discriminator)):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, scale)
    module.configure_gradient_clipping(optimizer, 1.0)
    norm = torch.stack([parameter.grad.norm() for parameter in module.network.parameters()]).norm().item()
    assert norm == pytest.approx(1, rel=1e-4)
    assert all((parameter.grad == 1e-3).all() for parameter in module.discriminator.parameters())


def test_networks_below_are_frozen_and_in_no_state(tmp_path, some):
    module = build(CONFIG, some)
    below = copy.deepcopy([module.motion.state_dict(), module.syncnet.state_dict()])
    before = copy.deepcopy(module.network.state_dict())
    run = trainer(tmp_path, 2)
    run.fit(module, *loaders(CONFIG, some))
    module.train()
    assert module.network.training and not module.motion.training and not module.syncnet.training
    for network, state in zip((module.motion, module.syncnet), below, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not torch.equal(module.network.last.weight, before["last.weight"])
    run.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.partition(".")[0] for name in state} == {"network", "discriminator", "best", "best_step", "best_measures"}


def test_the_measures_are_those_of_their_definitions(some):
    module = build(replace(CONFIG, val_temperature=0.5), some).eval()
    sums, distances, cosines, deviations = [], [], [], []
    with torch.no_grad():
        for index, batch in enumerate(loaders(CONFIG, some)[1]):
            sums.append(module.sums_of(batch, index))
            frames = int(batch.mask.sum())
            turned = torch.cat((batch.speech[:, : 2 * frames].roll(2 * (frames // 2), 1), batch.speech[:, 2 * frames :]), 1)
            real = batch.motion[0, :frames].numpy()
            for seed in range(DRAWS * index, DRAWS * (index + 1)):
                made, other = (
                    module.network(drawn_motion(module.motion, speech, batch.mask, 0.5, seed), batch.mask)[0, :frames]
                    for speech in (batch.speech, turned)
                )
                distances += list(10 * np.linalg.norm((made.numpy() - real).reshape(-1, 68, 3), axis=2).mean(1))
                cosines += [expert.confidence(module.syncnet, batch.speech[0, : 2 * frames], made)] * frames
                mouths = made.numpy()[:, MOUTH], real[:, MOUTH], other.numpy()[:, MOUTH]
                variances = [((mouth - mouth.mean(0)) ** 2).sum() for mouth in mouths[:2]]
                deviations.append((*variances, ((mouths[0] - mouths[2]) ** 2).sum()))
    measures = Measures.of(torch.stack(sums).sum(0))
    made, real, answered = np.sum(deviations, axis=0)
    assert measures.distance_mm == pytest.approx(np.mean(distances), rel=1e-4)
    assert measures.confidence == pytest.approx(np.mean(cosines), rel=1e-4)
    assert measures.movement == pytest.approx((made / real) ** 0.5, rel=1e-3)
    assert measures.answer == pytest.approx((answered / 2 / real) ** 0.5, rel=1e-3)
    assert measures.score == pytest.approx(measures.distance_mm * (1 - measures.confidence))


def test_a_mouth_that_stands_still_has_collapsed(some):
    module = build(CONFIG, some).eval()

    def measures():
        with torch.no_grad():
            return Measures.of(torch.stack([module.sums_of(batch, 0) for batch in loaders(CONFIG, some)[1]]).sum(0))

    class Still(torch.nn.Module):
        def forward(self, motion, mask):
            return torch.ones_like(motion)

    class Deaf(torch.nn.Module):
        """Moves, but the same whatever the sound."""

        def forward(self, motion, mask):
            return torch.sin(torch.arange(motion.shape[1]))[None, :, None].expand_as(motion)

    assert not measures().collapsed(1e-6)
    for network in (Still(), Deaf()):
        module.network = network
        assert measures().collapsed(0.1)
    assert measures().movement > 1 and measures().answer < 1e-6


class Scripted(DomainAdaptation):
    """Whose validations come out as a script says: (distance, movement) of each."""

    script: list

    def sums_of(self, batch, index):
        distance, movement = self.script[int(self.global_step) // 2 - 1]
        return torch.tensor([1.0, distance, 0.5, movement**2, 1.0, 2.0])


def scripted(some, config, script):
    plain = build(config, some)
    module = Scripted(plain.network, plain.motion, plain.syncnet, plain.below)
    module.script = script
    return module


class Weights(Callback):
    """Keeps PostNet's weights at each validation."""

    def __init__(self):
        self.at = {}

    def on_validation_end(self, trainer, module):
        self.at[trainer.global_step] = copy.deepcopy(module.network.state_dict())


@pytest.mark.parametrize(
    "script, best",
    [
        ([(5.0, 1.0), (3.0, 1.0), (4.0, 1.0), (3.5, 1.0)], 4),
        ([(5.0, 1.0), (1.0, 0.01), (4.0, 1.0), (0.5, 0.0)], 6),  # what has collapsed is no better, however near
        ([(5.0, 0.01), (4.0, 0.01), (4.5, 0.01), (9.0, 1.0)], 8),  # but better than nothing
    ],
)
def test_the_best_weights_are_kept_and_saved(tmp_path, some, script, best):
    module, seen = scripted(some, CONFIG, script), Weights()
    trainer(tmp_path, 8, seen).fit(module, *loaders(CONFIG, some))
    assert int(module.best_step) == best
    module.save(tmp_path / "checkpoint", "# postnet\n")
    saved = load(tmp_path / "checkpoint").network.state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in seen.at[best].items())
    assert not torch.equal(saved["last.weight"], seen.at[2 if best != 2 else 4]["last.weight"])
    told = (tmp_path / "checkpoint" / "card.md").read_text()
    assert told.startswith("# postnet\n") and f"step {best}" in told and "Collapsed" not in told


def test_a_collapse_is_logged_and_told(tmp_path, some):
    module = scripted(some, CONFIG, [(5.0, 0.01), (4.0, 0.02)])
    run = trainer(tmp_path, 4)
    run.fit(module, *loaders(CONFIG, some))
    assert run.callback_metrics["collapse"] == 1 and run.callback_metrics["movement"] == pytest.approx(0.02)
    module.save(tmp_path / "checkpoint", "")
    assert "**Collapsed**" in (tmp_path / "checkpoint" / "card.md").read_text()


def test_training_ends_when_nothing_is_better(tmp_path, some):
    script = [(5.0, 1.0), (3.0, 1.0), (4.0, 1.0), (4.0, 1.0), (1.0, 1.0)]
    for patience, last in ((2, 8), (0, 10)):
        run = trainer(tmp_path, 10)
        run.fit(scripted(some, replace(CONFIG, patience=patience), script), *loaders(CONFIG, some))
        assert run.global_step == last


def test_a_resumed_training_knows_its_best_and_whether_it_may_hope_for_better(tmp_path, some):
    """The state of a step is written after its validation."""

    class Saves(Callback):
        def on_validation_end(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    config, script = replace(CONFIG, patience=1), [(3.0, 1.0), (2.0, 1.0), (4.0, 1.0)]
    seen = Weights()
    whole = scripted(some, config, script)
    trainer(tmp_path, 10, Saves(), seen).fit(whole, *loaders(config, some))
    assert (whole.global_step, int(whole.best_step)) == (6, 4)
    for step in (2, 4, 6):
        torch.manual_seed(5)
        again = scripted(some, config, script)
        run = trainer(tmp_path, 10)
        run.fit(again, *loaders(config, some), ckpt_path=tmp_path / f"{step}.ckpt", weights_only=True)
        assert (run.global_step, int(again.best_step)) == (6, 4), step
        assert again.best_measures.tolist() == whole.best_measures.tolist()
        kept = all(torch.equal(tensor, seen.at[4][name]) for name, tensor in again.best.state_dict().items())
        assert kept or step < 4  # from step 2 on, this trainer draws otherwise: models/trainer.py sees to that


def test_a_training_brings_the_voice_nearer_to_the_person(tmp_path, some):
    config = replace(CONFIG, zero_start=True, paired_weight=5.0, learning_rate=5e-3, steps=60, val_every=20, log_every=10)
    work, out = tmp_path / "work", tmp_path / "checkpoint"
    beside = {name: str(folder) for name, folder in some.beside.items()}
    train(Job("postnet", asdict(config), str(some.train), str(some.val), beside, str(work), str(out)))

    rows = read_progress(work / "progress.jsonl")
    told = json.loads((work / "summary.json").read_text())
    assert told["steps"] == 60 and {"adversarial", "sync", "paired", "discriminator_loss"} <= rows[0].keys()
    judged = [row for row in rows if "val_loss" in row]
    best = min(judged, key=lambda row: row["val_loss"])
    assert best["collapse"] == 0 and 0 <= best["confidence"] <= 1
    person = load(out)
    config = person.network.config
    assert config.frames == len(person.network.motion_NX) == 24 + 40 + 18

    adapted = build(config, some).eval()
    adapted.network.load_state_dict(person.network.state_dict())
    plain = build(replace(config, zero_start=True), some).eval()
    with torch.no_grad():
        after, before = (
            Measures.of(
                torch.stack([module.sums_of(batch, index) for index, batch in enumerate(loaders(config, some)[1])]).sum(0)
            )
            for module in (adapted, plain)
        )
    assert after.score == pytest.approx(best["val_loss"], rel=1e-3)
    assert after.distance_mm < 0.6 * before.distance_mm and after.movement > before.movement
