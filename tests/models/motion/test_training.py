"""The losses, when the expert begins to count, and trainings from shards through the trainer."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer

from data.shardset import ShardSet
from models.landmarks import read_utterance
from models.learning_rate import warm_exponential
from models.motion.config import SYNCNET
from models.motion.examples import collate, loaders
from models.motion.generate import load, move
from models.motion.training import EXPERT, build, reconstruction
from models.syncnet import expert
from models.trainer import Job, read_progress, train
from tests.models.motion.corpus import CONFIG, WIDTH, given


def trainer(folder, steps, *callbacks):
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, val_check_interval=2,
        check_val_every_n_epoch=None, callbacks=list(callbacks), gradient_clip_val=1.0,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def folders(tmp_path):
    return given(tmp_path, [12, 9], [8, 12])


def batch_of(folders):
    return collate([read_utterance(clip, "speech", WIDTH) for clip in ShardSet(folders.val).clips()])


# Specification §1.4
def test_the_errors_are_those_of_the_release():
    motion, decoded = torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)
    decoded[0] = torch.tensor([1.0, 2, 4, 8])[:, None]
    decoded[1] = torch.tensor([3.0, 5, 100, 100])[:, None]  # two real frames
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    mse, continuity = reconstruction(decoded, motion, mask)
    assert mse.item() == pytest.approx((1 + 4 + 16 + 64 + 9 + 25) / 6)
    assert continuity.item() == pytest.approx((1 + 4 + 16 + 4 + 1 + 9) / 6), "differences 1, 2, 4 and 2; first frames 1 and 3"
    assert reconstruction(decoded + 7, motion + 7, mask)[1].item() == pytest.approx(continuity.item(), rel=1e-5)


def test_the_loss_is_the_weighted_sum(folders):
    config = replace(CONFIG, continuity_weight=3.0, kl_weight=0.4, sync_weight=0.01)
    module, batch = build(config, folders), batch_of(folders)
    logged = {}
    module.log_dict = lambda losses, **_: logged.update(losses)
    torch.manual_seed(1)
    loss = module.training_step(batch, 0)
    assert loss == logged["train_mse"] + 3 * logged["train_continuity"] + 0.4 * logged["train_kl"]
    assert "train_sync" not in logged, "not before a validation allows it"

    module.synced.fill_(True)
    torch.manual_seed(1)
    loss = module.training_step(batch, 0)
    plain = logged["train_mse"] + 3 * logged["train_continuity"] + 0.4 * logged["train_kl"]
    assert loss.item() == pytest.approx((plain + 0.01 * logged["train_sync"]).item(), rel=1e-6)
    torch.manual_seed(1)
    made = module.network(batch.motion, batch.speech, batch.mask)
    sync = expert.sync_loss(module.expert, batch.speech, made.motion, batch.mask, config.sync_clips, None)
    assert logged["train_sync"].item() == pytest.approx(sync.item(), rel=1e-5)


def test_the_loss_reaches_all_of_the_network_and_nothing_of_the_expert(folders):
    module, batch = build(CONFIG, folders), batch_of(folders)
    for coupling in module.network.flow.couplings:  # at zero, they would let nothing pass in the first step
        torch.nn.init.normal_(coupling.outward.weight)
    before = {name: tensor.clone() for name, tensor in module.expert.state_dict().items()}
    module.train()
    module.synced.fill_(True)
    module.training_step(batch, 0).backward()
    assert not module.expert.training
    for name, parameter in module.network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.expert.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.expert.state_dict().items())


def test_the_noise_is_on_the_sound_of_training_alone(folders):
    config = replace(CONFIG, audio_noise=0.5, audio_std=2.0)
    module, batch = build(config, folders), batch_of(folders)
    added = module._noisy(batch).speech - batch.speech
    assert added.std().item() == pytest.approx(1.0, rel=0.2)
    plain = build(CONFIG, folders)
    assert torch.equal(plain._noisy(batch).speech, batch.speech)


class Watch(Callback):
    """Whether the expert counts, before each training step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, *_):
        self.seen.append(bool(module.synced))


@pytest.mark.parametrize(
    "changes, seen",
    [
        ({"sync_threshold": 99.0}, [False, False, True, True, True]),  # validated after two steps
        ({"sync_threshold": 0.0}, [False] * 5),
        ({"sync_threshold": 99.0, "prior": "none"}, [False] * 5),  # a regressor learns by squared error alone
    ],
)
def test_the_expert_counts_once_a_validation_has_found_its_loss_low(tmp_path, folders, changes, seen):
    config = replace(CONFIG, **changes)
    module, watch = build(config, folders), Watch()
    trainer(tmp_path, 5, watch).fit(module, *loaders(config, folders))
    assert watch.seen == seen


def test_the_expert_goes_on_counting(tmp_path, folders):
    """Whatever later validations find, and in a training that was killed."""
    config = replace(CONFIG, sync_threshold=99.0)
    module, first = build(config, folders), trainer(tmp_path, 3)
    first.fit(module, *loaders(config, folders))
    first.save_checkpoint(last := tmp_path / "last.ckpt")
    assert module.synced

    strict = replace(CONFIG, sync_threshold=0.0)
    resumed, watch = build(strict, folders), Watch()
    trainer(tmp_path, 7, watch).fit(resumed, *loaders(strict, folders), ckpt_path=last, weights_only=True)
    assert watch.seen == [True] * 4


def test_the_state_after_a_validation_says_what_it_found(tmp_path, folders):
    """As the trainer saves it then, so that a resumed training goes on with the expert, or without."""
    for threshold in (99.0, 0.0):
        module = build(replace(CONFIG, sync_threshold=threshold), folders)
        first = trainer(tmp_path, 2)
        first.fit(module, *loaders(CONFIG, folders))
        first.save_checkpoint(last := tmp_path / "last.ckpt")
        assert bool(torch.load(last, weights_only=True)["state_dict"]["synced"]) == (threshold > 0)


def test_the_expert_is_in_no_state(tmp_path, folders):
    module, first = build(CONFIG, folders), trainer(tmp_path, 2)
    first.fit(module, *loaders(CONFIG, folders))
    first.save_checkpoint(last := tmp_path / "last.ckpt")
    state = torch.load(last, weights_only=True)["state_dict"]
    assert not any(name.startswith(EXPERT) for name in state) and "synced" in state
    assert {name.removeprefix("network.") for name in state} - {"synced"} == set(module.network.state_dict())

    module.save(tmp_path / "checkpoint", "# A card\n")
    assert set(load(tmp_path / "checkpoint").state_dict()) == set(module.network.state_dict())
    for name, tensor in expert.load(tmp_path / "checkpoint" / SYNCNET).state_dict().items():
        assert torch.equal(tensor, module.expert.state_dict()[name])


def test_an_expert_of_another_column_is_refused(folders):
    with pytest.raises(
        ValueError, match=r"hears \('speech', 6, 'of a test'\), and this training \('speech', 6, 'hubert-large'\)"
    ):
        build(replace(CONFIG, speech_encoder="hubert-large"), folders)


def test_validation_is_the_same_each_time(tmp_path, folders):
    module = build(CONFIG, folders)
    _, val = loaders(CONFIG, folders)
    first, second = (trainer(tmp_path, 1).validate(module, val, verbose=False)[0] for _ in range(2))
    assert first == second and set(first) == {"val_loss", "val_mse", "val_continuity", "val_kl", "val_sync"}


# §1.4: linear warm-up of 1000 steps, then a tenth in 250,000
def test_the_learning_rate_of_the_release(folders):
    shares = [warm_exponential(step) for step in (0, 499, 999, 1000, 250_000, 500_000)]
    assert shares == pytest.approx([0.001, 0.5, 1.0, 10 ** (-1000 / 250_000), 0.1, 0.01])
    config = replace(CONFIG, learning_rate=5e-4, learning_rate_decay="exponential")
    made = build(config, folders).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(1100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(5e-7) and rates[999] == pytest.approx(5e-4) == max(rates)
    assert rates[1090] == pytest.approx(4.95e-4, rel=1e-3)  # as a user's log of the release has it (§2.3)


# §13
def test_eight_clips_can_be_learnt(tmp_path):
    folders = given(tmp_path, [8, 12, 12, 8, 8, 12, 10, 9], [8])
    config = replace(CONFIG, batch_size=8, learning_rate=1e-2, flow_steps=2, steps=60)
    module = build(config, folders)
    batch = collate([read_utterance(clip, "speech", WIDTH) for clip in ShardSet(folders.train).clips()])

    def mse():
        made = module.network.eval()(batch.motion, batch.speech, batch.mask)
        module.network.train()
        return reconstruction(made.motion, batch.motion, batch.mask)[0].item()

    before = mse()
    Trainer(
        max_steps=60, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    ).fit(module, loaders(config, folders)[0])  # fmt: skip
    assert mse() < before / 10


@pytest.mark.parametrize("prior", ["flow", "gaussian", "none"])
def test_a_training_from_shards_through_the_trainer(tmp_path, prior):
    folders = given(tmp_path, [24, 15, 18], [16])
    config = replace(CONFIG, prior=prior, crop_frames=12, learning_rate_decay="cosine", steps=10, sync_threshold=99.0)
    beside = {name: str(folder) for name, folder in folders.beside.items()}
    work, out = tmp_path / "work", tmp_path / "out"
    job = Job("motion", asdict(config), str(folders.train), str(folders.val), beside, str(work), str(out))
    train(Job(**json.loads(json.dumps(asdict(job)))))
    rows = read_progress(work / "progress.jsonl")
    assert [row["step"] for row in rows if "val_loss" in row] == [4, 9]
    assert [row["step"] for row in rows if "train_sync" in row] == ([] if prior == "none" else list(range(5, 10)))
    network = load(out)
    assert network.config == config
    made = [move(network, np.zeros((18, WIDTH), np.float32), 1.0, seed) for seed in range(2)]
    assert made[0].shape == (9, 204) and np.array_equal(*made) == (prior == "none")
    # Killed after its last step, it finds nothing to do and makes the same checkpoint.
    first = (out / "model.safetensors").read_bytes()
    train(job)
    assert (out / "model.safetensors").read_bytes() == first
    told = json.loads((work / "summary.json").read_text())
    assert told["parameters"] == sum(parameter.numel() for parameter in network.parameters()), "the expert's do not count"
