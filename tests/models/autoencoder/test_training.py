import copy
import json
from dataclasses import asdict, replace

import pytest
import torch
from lightning import Callback, Trainer

from models.autoencoder.config import PRESETS
from models.autoencoder.examples import loaders, validation_examples
from models.autoencoder.generate import load
from models.autoencoder.training import Reconstruction, build
from models.given import Given
from models.images import to_unit
from models.perceptual import NoBackbone, Perceptual
from models.trainer import Job, read_progress, train
from tests.models.autoencoder.corpus import CONFIG, made_frames, write_corpus

ADVERSARIAL = replace(CONFIG, crop=32, discriminator_weight=0.75)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return torch.from_numpy(made_frames(4, 32))


@pytest.fixture
def shards(tmp_path):
    return write_corpus(tmp_path / "set", [5, 5], size=32)


def trainer(folder, steps, *callbacks):
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, val_check_interval=2,
        check_val_every_n_epoch=None, callbacks=list(callbacks),
    )  # fmt: skip


def gradients(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), retain_graph=True)


def close(ours, theirs):
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(ours, theirs, strict=True))


def test_the_loss_is_that_of_the_paper(batch):
    config = replace(CONFIG, perceptual_weight=0.5, backbone="vgg16.pth", codebook_weight=2.0)
    perceptual = Perceptual()
    module = Reconstruction(config, perceptual)
    loss = module.training_step(batch, 0)
    images = to_unit(batch)
    codes, distance = module.network.quantise(module.network.encode(images))
    decoded = module.network.render(codes)
    expected = (images - decoded).abs().mean() + 0.5 * perceptual(images, decoded).mean() + 2 * distance
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and perceptual(images, decoded).mean() > 0.01
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.network.parameters())
    assert not any(parameter.grad is not None for parameter in perceptual.parameters())


def test_each_loss_reaches_the_weights_of_its_own_network_alone(batch):
    """Against two losses written apart, as if for two optimisers."""
    module = Reconstruction(ADVERSARIAL, None)
    other = copy.deepcopy(module)
    module.training_step(batch, 0).backward()

    network, discriminator, images = other.network, other.discriminator, to_unit(batch)
    codes, distance = network.quantise(network.encode(images))
    decoded = network.render(codes)
    l1 = (images - decoded).abs().mean()
    recognised = -discriminator(decoded).mean()
    last = [network.vq.decoder.conv_out.weight]
    (of_l1,), (of_recognised,) = (torch.autograd.grad(loss, last, retain_graph=True) for loss in (l1, recognised))
    ratio = of_l1.norm() / (of_recognised.norm() + 1e-4)
    theirs = gradients(l1 + distance + 0.75 * ratio.detach() * recognised, network.parameters())
    assert close([parameter.grad for parameter in module.network.parameters()], theirs)
    assert not close(theirs, gradients(l1 + distance, network.parameters())), "the discriminator is heard"

    hinge = 0.5 * (1 - discriminator(images)).relu().mean() + 0.5 * (1 + discriminator(decoded.detach())).relu().mean()
    theirs = gradients(hinge, discriminator.parameters())
    assert any(gradient.any() for gradient in theirs)
    assert close([parameter.grad for parameter in module.discriminator.parameters()], theirs)


def test_the_discriminator_waits_for_its_start(batch, tmp_path, shards):
    module = Reconstruction(replace(ADVERSARIAL, discriminator_start=2), None)
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, *_):
            seen.append(next(module.discriminator.parameters()).detach().clone())

    before = next(module.discriminator.parameters()).detach().clone()
    trainer(tmp_path, 4, Watch()).fit(module, *loaders(module.config, Given(shards, shards)))
    assert torch.equal(seen[0], before) and torch.equal(seen[1], before)
    assert not torch.equal(seen[2], before) and not torch.equal(seen[3], seen[2])


def test_the_codebook_begins_at_its_start_with_codes_drawn_once(tmp_path, shards):
    module = Reconstruction(replace(CONFIG, codebook_start=2, learning_rate=1e-4), None)
    codebook = module.network.vq.quantize.embedding.weight
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, *_):
            seen.append(codebook.detach().clone())

    before = codebook.detach().clone()
    trainer(tmp_path, 4, Watch()).fit(module, *loaders(module.config, Given(shards, shards)))
    assert torch.equal(seen[0], before) and torch.equal(seen[1], before), "latents go by as they are"
    latents = module.network.encode(to_unit(torch.stack(validation_examples(shards, module.config)))).detach()
    drawn = seen[2]
    assert torch.cdist(drawn, latents.movedim(1, -1).reshape(-1, 3)).min(1).values.max() < latents.std()
    assert 0 < (seen[3] - drawn).abs().max() < 3e-4, "after that they are trained, in steps of the learning rate"


def test_validation_does_not_quantise_before_codes_are_drawn(tmp_path, shards):
    """At the very step at which they are to be, too: validation comes before the training step that draws them."""
    config = replace(CONFIG, codebook_start=2)
    module = Reconstruction(config, None)
    told = {}

    class Watch(Callback):
        def on_validation_end(self, trainer, *_):
            images = to_unit(torch.stack(validation_examples(shards, config)))
            with torch.no_grad():
                plain = module.network.render(module.network.encode(images))
            error = (images - plain.clamp(-1, 1)).abs().mean().item()
            told[trainer.global_step] = float(trainer.callback_metrics["val_loss"]), error

    trainer(tmp_path, 2, Watch()).fit(module, *loaders(config, Given(shards, shards)))
    ((step, (ours, plain)),) = told.items()
    assert step == 2 and ours == pytest.approx(plain, rel=1e-5)


def test_moments_of_the_latents_are_followed(batch):
    module = Reconstruction(CONFIG, None)
    latents = module.network.encode(to_unit(batch)).detach()
    module.training_step(batch, 0)
    mean = latents.mean((0, 2, 3))
    assert torch.allclose(module.latent_mean_C, mean, atol=1e-6)
    assert module.latent_square.item() == pytest.approx((latents - mean[:, None, None]).square().mean().item(), rel=1e-5)
    module.eval()
    before = module.latent_mean_C.clone()
    module.validation_step(255 - batch, 0)
    assert torch.equal(module.latent_mean_C, before), "validation is not training"


def test_what_is_saved_is_standardised_and_training_goes_on_as_it_was(tmp_path, batch):
    module = Reconstruction(CONFIG, None)
    module.training_step(batch, 0)
    before, images = copy.deepcopy(module.network.state_dict()), to_unit(batch)
    module.save(tmp_path / "checkpoint", "# A card\n")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.network.state_dict().items())
    network = load(tmp_path / "checkpoint")
    assert network.config == CONFIG and not any(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        latents = network.encode(images)
        assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
        assert latents.square().mean().item() == pytest.approx(1, abs=1e-4)
        assert (network.decode(latents) - module.network.decode(module.network.encode(images))).abs().max() <= 1e-5


def test_training_resumes_with_everything(tmp_path, shards):
    batches = loaders(ADVERSARIAL, Given(shards, shards))
    first, short = Reconstruction(ADVERSARIAL, None), trainer(tmp_path, 3)
    short.fit(first, *batches)
    short.save_checkpoint(last := tmp_path / "last.ckpt")

    second = Reconstruction(ADVERSARIAL, None)
    trainer(tmp_path, 3).validate(second, batches[1], ckpt_path=last, weights_only=True, verbose=False)
    for (name, ours), theirs in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert first.latent_mean_C.any() and "discriminator.3.running_mean" in first.state_dict()

    longer = trainer(tmp_path, 5)
    longer.fit(second, *batches, ckpt_path=last, weights_only=True)
    assert longer.global_step == 5
    (adam,) = longer.optimizers
    trained = [*second.network.parameters(), *second.discriminator.parameters()]
    assert {float(adam.state[parameter]["step"]) for parameter in trained} == {5.0}


def test_validation_is_the_same_each_time(tmp_path, shards):
    module = Reconstruction(ADVERSARIAL, None)
    _, val = loaders(ADVERSARIAL, Given(shards, shards))
    first, second = (trainer(tmp_path, 1).validate(module, val, verbose=False)[0]["val_loss"] for _ in range(2))
    assert first == second > 0.1


def test_a_training_leaves_a_checkpoint_that_decodes_as_it_told(tmp_path):
    config = replace(CONFIG, steps=500, val_every=100, log_every=20, codebook_start=100, codes=64, learning_rate_decay="cosine")
    training, validation = write_corpus(tmp_path / "train", [8, 8, 8]), write_corpus(tmp_path / "val", [4, 4])
    work, out = tmp_path / "work", tmp_path / "checkpoint"
    train(Job("autoencoder", asdict(config), str(training), str(validation), {}, str(work), str(out)))

    rows = read_progress(work / "progress.jsonl")
    losses = [row["val_loss"] for row in rows if "val_loss" in row]
    told = json.loads((work / "summary.json").read_text())
    assert losses[-1] == told["val_loss"] and told["steps"] == 500
    network, images = load(out), to_unit(torch.stack(validation_examples(validation, config)))
    with torch.inference_mode():
        decoded = network.decode(network.encode(images))
    assert (images - decoded.clamp(-1, 1)).abs().mean().item() == pytest.approx(told["val_loss"], abs=1e-4)
    plain = images.mean((2, 3), keepdim=True)
    assert told["val_loss"] < 0.5 * (images - plain).abs().mean(), "less than half of what each image's one colour comes to"
    assert losses[-1] < 0.6 * losses[0]


def test_a_perceptual_loss_without_its_backbone_is_refused_before_training(tmp_path):
    with pytest.raises(NoBackbone, match=r"vgg16-397923af\.pth"):
        build(PRESETS["paper_256"], Given(tmp_path, tmp_path))
