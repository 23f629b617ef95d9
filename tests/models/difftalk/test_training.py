import dataclasses
import json
from dataclasses import replace

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, default_collate

from models import trainer as trainer_module
from models.checkpoint import BadCheckpoint
from models.difftalk.examples import AUTOENCODER, loaders, read_clip
from models.difftalk.generate import load
from models.difftalk.network import DiffTalkUNet
from models.difftalk.training import DiffTalk, build, objective
from models.given import Given
from models.trainer import Job, read_progress
from tests.models.difftalk.corpus import CONFIG, encoded, made_clip, write_autoencoder, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "latents", [6, 5])


@pytest.fixture
def batch(tmp_path):
    (clip,) = encoded([made_clip(1, 6)], write_autoencoder(tmp_path / "autoencoder"))
    clip = read_clip(clip, CONFIG)
    return default_collate([clip.example(index, 5) for index in range(4)])


def trainer(folder, steps):
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, val_check_interval=steps,
    )  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_the_loss_is_of_the_whole_latents(batch, prediction):
    config = replace(CONFIG, prediction=prediction)
    network = DiffTalkUNet(config)
    torch.nn.init.zeros_(network.unet.conv_out.weight)
    torch.nn.init.zeros_(network.unet.conv_out.bias)
    epsilon = torch.randn(batch.latents.shape)
    loss = objective(network, config, batch, torch.tensor([3, 40, 500, 900]), torch.rand(4), epsilon)
    target = epsilon if prediction == "epsilon" else batch.latents
    assert loss.item() == pytest.approx(target.square().mean().item(), rel=1e-5)


def test_one_batch_can_be_learnt(batch):
    torch.manual_seed(0)
    network = DiffTalkUNet(CONFIG)
    adam = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 2e-3)
    gamma, epsilon = torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.randn(batch.latents.shape)
    losses = []
    for _ in range(60):
        losses.append(objective(network, CONFIG, batch, torch.tensor([900, 500, 300, 50]), gamma, epsilon))
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    assert losses[-1] < 0.1 * losses[0]


def test_the_average_follows_faster_at_first(batch):
    """min(decay, (1 + n) / (10 + n)), the release's warm-up."""
    module = DiffTalk(replace(CONFIG, ema_decay=0.3), AUTOENCODER)
    weight, average = module.network.unet.conv_in.weight, module.average.module.unet.conv_in.weight
    expected = None
    for count, value in enumerate((1.0, 2.0, 3.0, 5.0, 7.0)):
        torch.nn.init.constant_(weight, value)
        module.average.update_parameters(module.network)
        decay = min(0.3, (1 + count) / (10 + count))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.flatten()[0].item() == pytest.approx(expected)


def test_training_resumes_with_weights_average_and_optimizer(corpus, tmp_path):
    loader, validation = loaders(CONFIG, Given(*corpus))
    first, short = build(CONFIG, Given(*corpus)), trainer(tmp_path, 3)
    short.fit(first, loader, validation)
    last = tmp_path / "last.ckpt"
    short.save_checkpoint(last)
    second, longer = build(CONFIG, Given(*corpus)), trainer(tmp_path, 5)
    trainer(tmp_path, 3).validate(second, validation, ckpt_path=last, weights_only=True, verbose=False)
    for ours, theirs in zip(first.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    longer.fit(second, loader, validation, ckpt_path=last, weights_only=True)
    assert longer.global_step == 5 and second.average.n_averaged == 5


def test_mixed_precision(corpus, tmp_path):
    config = replace(CONFIG, precision="bf16-mixed")
    module = build(config, Given(*corpus))
    mixed = Trainer(
        max_steps=2, accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    mixed.fit(module, DataLoader(loaders(config, Given(*corpus))[0].dataset, 4))
    assert all(torch.isfinite(parameter).all() and parameter.dtype == torch.float32 for parameter in module.network.parameters())


def test_a_training_from_latents_through_the_trainer(corpus, tmp_path):
    config = replace(CONFIG, steps=12, val_every=4, log_every=1)
    job = Job("difftalk", dataclasses.asdict(config), *map(str, corpus), {}, str(tmp_path / "work"), str(tmp_path / "out"))
    trainer_module.train(Job(**json.loads(json.dumps(dataclasses.asdict(job)))))
    rows = read_progress(tmp_path / "work/progress.jsonl")
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 7, 11]
    network, autoencoder = load(tmp_path / "out")
    assert network.config == config
    assert (tmp_path / "out/autoencoder/card.md").read_text() == "# untrained\n"
    assert autoencoder.config.factor == 4
    # Killed after its last step, it makes the same checkpoint.
    first = (tmp_path / "out/model.safetensors").read_bytes()
    trainer_module.train(job)
    assert (tmp_path / "out/model.safetensors").read_bytes() == first


def test_an_autoencoder_of_other_latents_is_refused(corpus, tmp_path):
    module = build(replace(CONFIG, latent_size=16), Given(*corpus))
    module.save(tmp_path / "checkpoint", "")
    with pytest.raises(BadCheckpoint, match=r"wants 32 pixels in 3 x 16².*3 channels of a 4th.*train both again"):
        load(tmp_path / "checkpoint")
