from dataclasses import replace

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, default_collate

from models.given import Given
from models.images import box_mask
from models.video_editing.examples import loaders
from models.video_editing.generate import load
from models.video_editing.training import VideoEditing, objective, random_gamma
from tests.models.video_editing.corpus import CONFIG, decoded_clip, write_corpus
from tests.models.video_editing.test_network import randomised


def examples():
    return [decoded_clip(5, seed).example(3) for seed in range(4)]


@pytest.fixture
def batch():
    return default_collate(examples())


def trainer(folder, steps):
    return Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, val_check_interval=steps,
    )  # fmt: skip


def test_gamma_lies_between_two_steps():
    gammas = CONFIG.noise_schedule.alphas_cumprod(10).float()
    drawn = random_gamma(gammas, 20_000)
    assert drawn.min() >= gammas[-1] and drawn.max() <= gammas[0]
    shares = torch.histc(torch.bucketize(drawn, gammas.flip(0)).float(), bins=9, min=1, max=9) / len(drawn)
    assert torch.allclose(shares, torch.full((9,), 1 / 9), atol=0.02), "each pair of steps is as likely"


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_pixels_outside_the_mask_count_nothing(batch, prediction):
    config = replace(CONFIG, prediction=prediction)
    mask, epsilon, gamma = box_mask(batch.box, 32), torch.randn(4, 3, 32, 32), torch.rand(4)
    outputs = []

    def network(*inputs):
        outputs.append(torch.zeros(4, 3, 32, 32, requires_grad=True))
        return outputs[-1] + (~mask * 1e6)

    loss = objective(network, config, batch, gamma, epsilon)
    target = epsilon if prediction == "epsilon" else batch.frame.permute(0, 3, 1, 2) / 127.5 - 1
    assert loss.item() == pytest.approx((mask * target).square().mean().item(), rel=1e-5)
    loss.backward()
    assert not (outputs[0].grad * ~mask).any() and outputs[0].grad.any()


def test_the_network_sees_noise_inside_the_mask_only(batch):
    def network(noisy, previous, identity, mel, gamma):
        outside = (~box_mask(batch.box, 32)).expand_as(noisy)
        frame = batch.frame.permute(0, 3, 1, 2) / 127.5 - 1
        assert torch.equal(noisy[outside], frame[outside]) and not torch.isclose(noisy, frame)[~outside].any()
        return noisy

    objective(network, CONFIG, batch, torch.full((4,), 0.1), torch.full((4, 3, 32, 32), 3.0))


def test_one_batch_can_be_learnt(batch, tmp_path):
    torch.manual_seed(0)
    module = VideoEditing(replace(CONFIG, learning_rate=2e-3, ema_decay=0.8))
    gamma, epsilon = torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.randn(4, 3, 32, 32)

    def loss(network):
        with torch.inference_mode():
            return objective(network, module.config, batch, gamma, epsilon)

    before = loss(module.average)
    trainer(tmp_path, 60).fit(module, DataLoader(examples() * 60, 4), DataLoader(examples(), 4))
    assert loss(module.network) < 0.1 * before and loss(module.average) < 0.1 * before


def test_the_average_is_that_of_the_paper(batch):
    module = VideoEditing(replace(CONFIG, ema_decay=0.9))
    weight, average = module.network.unet.conv_in.weight, module.average.module.unet.conv_in.weight
    expected = None
    for value in (1.0, 2.0, 3.0):
        torch.nn.init.constant_(weight, value)
        module.average.update_parameters(module.network)
        expected = value if expected is None else 0.9 * expected + 0.1 * value
        assert average.flatten()[0].item() == pytest.approx(expected)


def test_training_resumes_with_weights_average_and_optimizer(tmp_path):
    config = replace(CONFIG, batch_size=2)
    shards = write_corpus(tmp_path / "set", [3, 3])
    loader, validation = loaders(config, Given(shards, shards))

    first, short = VideoEditing(config), trainer(tmp_path, 3)
    short.fit(first, loader, validation)
    short.save_checkpoint(tmp_path / "last.ckpt")
    second = VideoEditing(config)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert state["average.n_averaged"] == 3

    last = tmp_path / "last.ckpt"
    trainer(tmp_path, 3).validate(second, validation, ckpt_path=last, weights_only=True, verbose=False)
    for ours, theirs in zip(first.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    longer = trainer(tmp_path, 5)
    longer.fit(second, loader, validation, ckpt_path=last, weights_only=True)
    assert longer.global_step == 5 and second.average.n_averaged == 5


def test_validation_is_of_the_average_and_the_same_each_time(tmp_path):
    module = VideoEditing(CONFIG)
    shards = write_corpus(tmp_path / "set", [5, 5])
    _, loader = loaders(CONFIG, Given(shards, shards))

    def val_loss():
        return trainer(tmp_path, 1).validate(module, loader, verbose=False)[0]["val_loss"]

    untrained = val_loss()
    module.average.module.load_state_dict(randomised(CONFIG).state_dict())
    assert val_loss() == val_loss() != untrained


def test_the_averaged_weights_are_saved(tmp_path):
    module = VideoEditing(CONFIG)
    module.average.module.load_state_dict(randomised(CONFIG).state_dict())
    module.save(tmp_path / "checkpoint", "a card")
    loaded = load(tmp_path / "checkpoint")
    for ours, theirs in zip(module.average.module.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)
