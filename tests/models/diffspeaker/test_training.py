"""The loss, what it reaches, and trainings from shards through the trainer."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning import Trainer
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

from data.shardset import ShardSet
from models import trainer as trainer_module
from models.diffspeaker import network as network_module
from models.diffspeaker.examples import decode_clip, loaders
from models.diffspeaker.generate import load, move, regenerate
from models.diffspeaker.network import DiffSpeaker
from models.diffspeaker.training import build, load_pretrained, objective, reconstruction
from models.given import Given
from models.speech.base import EncoderMissing
from models.trainer import Job, read_progress
from tests.models.diffspeaker.corpus import SMALL, motion_of, spoken, write_corpus
from tests.models.diffspeaker.test_network import tiny_encoder


def fitted(module, folder, steps, train, val):
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, val_check_interval=steps,
        check_val_every_n_epoch=None, precision=module.config.precision,
    )  # fmt: skip
    trainer.fit(module, train, val)
    return module


def said(network, clips, sampler, steps):
    """Vertices of decoded clips."""
    return move(
        network, [clip.audio for clip in clips], [len(clip.motion) for clip in clips], [clip.style for clip in clips],
        [clip.template for clip in clips], range(len(clips)), sampler, steps, 2,
    )  # fmt: skip


def test_the_loss_of_the_release_counts_padding():
    x0 = torch.zeros(2, 4, 3)
    predicted = torch.zeros(2, 4, 3)
    predicted[0] = torch.tensor([1.0, 2, 4, 8])[:, None]
    predicted[1] = torch.tensor([3.0, 5, 100, 100])[:, None]  # two real frames
    frames = torch.tensor([4, 2])
    error = (1 + 4 + 16 + 64 + 9 + 25) / 8
    velocity = (1 + 4 + 16 + 4 + 25) / 6  # the last: from the last real frame to padding
    assert reconstruction(predicted, x0, frames, 1.0, False).item() == pytest.approx(error + velocity)
    assert reconstruction(predicted, x0, frames, 0.0, False).item() == pytest.approx(error)
    fair = (1 + 4 + 16 + 64 + 9 + 25) / 6 + 2 * (1 + 4 + 16 + 4) / 4
    assert reconstruction(predicted, x0, frames, 2.0, True).item() == pytest.approx(fair)
    assert reconstruction(predicted[:, :1], x0[:, :1], torch.tensor([1, 1]), 1.0, True).item() == pytest.approx(5)


def batch_of(config, folder):
    shards = write_corpus(folder, [12, 7])
    return next(iter(loaders(config, Given(shards, shards))[1]))


def loss_of(network, batch):
    gammas = network.config.noise_schedule.alphas_cumprod(1000).float()
    step = torch.tensor([100, 700])
    return objective(network, batch, step, gammas[step], torch.randn(batch.motion.shape))


def test_the_untrained_loss_is_the_motion_itself(tmp_path):
    batch = batch_of(SMALL, tmp_path / "set")
    motion = batch.motion
    expected = motion.square().mean() + motion.diff(dim=1).square().mean()
    assert loss_of(DiffSpeaker(SMALL), batch).item() == pytest.approx(expected.item(), rel=1e-5)


# Specification §12.9
def test_the_loss_reaches_the_encoder_but_not_its_convolutions(tmp_path, monkeypatch):
    monkeypatch.setattr(network_module, "speech_encoder", tiny_encoder)
    config = replace(SMALL, audio="hubert-base", audio_width=768)
    batch = batch_of(config, tmp_path / "set")
    network = DiffSpeaker(config).train()
    network.encoder.config.layerdrop = 0.0
    network.encoder.encoder.config.layerdrop = 0.0
    torch.nn.init.normal_(network.denoiser.motion_out.weight)  # at zero, it would let nothing pass in the first step
    loss_of(network, batch).backward()
    for name, parameter in network.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        if "feature_extractor" in name:
            assert not parameter.requires_grad and not reached, name
        elif "masked_spec_embed" not in name:  # which a step reaches where it masks something
            assert reached, name


def test_a_training_changes_every_weight(tmp_path):
    """The release's trainings of newer libraries ran, logged a loss, and changed nothing: a face that never moves."""
    shards = write_corpus(tmp_path / "set", [12, 7])
    module = build(SMALL, Given(shards, shards))
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    fitted(module, tmp_path, 1, *loaders(SMALL, Given(shards, shards)))
    assert not torch.equal(before["network.denoiser.motion_out.weight"], module.network.denoiser.motion_out.weight)
    assert module.network.denoiser.motion_out.weight.abs().mean().item() == pytest.approx(SMALL.learning_rate, rel=0.2)
    fitted(module, tmp_path, 4, *loaders(SMALL, Given(shards, shards)))
    unchanged = [name for name, parameter in module.named_parameters() if torch.equal(before[name], parameter)]
    assert not unchanged


# §12.11. Metres are far below the noise (§0.1), so that the released objective learns them, but in days: without normalising,
# these faces are giants.
@pytest.mark.parametrize("normalise, size", [(False, 250.0), (True, 1.0)])
def test_two_clips_can_be_learnt(tmp_path, normalise, size):
    config = replace(
        SMALL, normalise=normalise, length_normalised=normalise, dropout=0.0, learning_rate=5e-3, learning_rate_decay="cosine",
        steps=250,
    )  # fmt: skip
    shards = write_corpus(tmp_path / "set", [24, 15], speakers=("anna",), size=size)
    clips = [decode_clip(clip, config) for clip in ShardSet(shards).clips()]
    given = Given(shards, shards)
    network = fitted(build(config, given), tmp_path, 250, loaders(config, given)[0], None).network.eval()
    for sampler, steps in (("ddim", 10), ("release", 50)):
        for clip, made in zip(clips, said(network, clips, sampler, steps), strict=True):
            error = (made - clip.template).reshape(len(clip.motion), -1) - clip.motion
            assert np.sqrt(np.mean(error**2)) < 0.1 * np.sqrt(np.mean(clip.motion**2))


def test_the_units_of_motion_are_measured_once_and_kept(tmp_path):
    config = replace(SMALL, normalise=True)
    shards = write_corpus(tmp_path / "set", [12, 7, 9])
    module = fitted(build(config, Given(shards, shards)), tmp_path, 2, *loaders(config, Given(shards, shards)))
    mean, scale = loaders(config, Given(shards, shards))[0].dataset.statistics()
    assert torch.equal(module.network.motion_mean_X, torch.from_numpy(mean))
    assert module.network.motion_scale.item() == pytest.approx(scale)
    module.save(tmp_path / "checkpoint", "a card")
    loaded = load(tmp_path / "checkpoint")
    assert torch.equal(loaded.motion_mean_X, module.network.motion_mean_X)


def test_mixed_precision(tmp_path):
    config = replace(SMALL, precision="bf16-mixed", normalise=True, audio_context=1, layers=2)
    shards = write_corpus(tmp_path / "set", [12, 7])
    module = fitted(build(config, Given(shards, shards)), tmp_path, 3, *loaders(config, Given(shards, shards)))
    assert module.network.denoiser.motion_out.weight.dtype == torch.float32
    assert torch.isfinite(module.network.denoiser.motion_out.weight).all()


def test_a_training_from_shards_through_the_trainer(tmp_path):
    train, val = write_corpus(tmp_path / "train", [20, 15, 18]), write_corpus(tmp_path / "val", [16], speakers=("carl",))
    config = replace(SMALL, normalise=True, crop_frames=12, silence=0.2, guidance=0.3, learning_rate_decay="cosine")
    job = Job("diffspeaker", dataclasses.asdict(config), str(train), str(val), {}, str(tmp_path / "work"), str(tmp_path / "out"))
    trainer_module.train(Job(**json.loads(json.dumps(dataclasses.asdict(job)))))
    rows = read_progress(tmp_path / "work/progress.jsonl")
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    assert [row["step"] for row in rows if "val_loss" in row] == list(range(4, 60, 5))
    assert load(tmp_path / "out").config == config
    (made,) = regenerate(tmp_path / "out", list(ShardSet(val).clips()), "ddim", 4, 1, 0)
    assert made.shape == (16, 10, 3)
    # Killed after its last step, it goes on with the units it had, and makes the same checkpoint.
    first = (tmp_path / "out/model.safetensors").read_bytes()
    trainer_module.train(job)
    assert (tmp_path / "out/model.safetensors").read_bytes() == first


TINY = {"num_hidden_layers": 1, "intermediate_size": 64, "conv_dim": (16,) * 7, "num_attention_heads": 2}


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_pretrained_weights_of_either_encoder(tmp_path, kind):
    torch.manual_seed(0)
    pretrained = HubertModel(HubertConfig(**TINY)) if kind == "hubert" else Wav2Vec2ForCTC(Wav2Vec2Config(**TINY))
    pretrained.eval().save_pretrained(tmp_path / "encoder")
    encoder, sound = tiny_encoder().eval(), torch.randn(1, 8000)
    load_pretrained(encoder, tmp_path / "encoder")
    with torch.inference_mode():
        expected = (pretrained if kind == "hubert" else pretrained.wav2vec2)(sound).last_hidden_state
        assert torch.allclose(encoder(sound).last_hidden_state, expected, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in encoder.feature_extractor.parameters())


def test_another_model_is_refused(tmp_path):
    Wav2Vec2Model(Wav2Vec2Config(**TINY | {"num_hidden_layers": 2})).save_pretrained(tmp_path / "encoder")
    with pytest.raises(EncoderMissing, match=r"encoder holds no base model.*encoder.layers.1"):
        load_pretrained(tiny_encoder(), tmp_path / "encoder")


def test_a_training_without_its_encoder_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(network_module, "speech_encoder", tiny_encoder)
    config = replace(SMALL, audio="hubert-base", audio_width=768, pretrained=str(tmp_path))
    with pytest.raises(EncoderMissing, match=r"config.json does not exist"):
        build(config, Given(tmp_path, tmp_path))


def test_the_sound_is_what_moves_the_face(tmp_path):
    """Trained, it opens the mouth where the sound is loud, in a clip it has not seen."""
    config = replace(SMALL, normalise=True, length_normalised=True, learning_rate=3e-3, learning_rate_decay="cosine", steps=300)
    shards = write_corpus(tmp_path / "set", [40, 40, 40, 40], speakers=("anna",))
    network = fitted(build(config, Given(shards, shards)), tmp_path, 300, *loaders(config, Given(shards, shards))).network.eval()
    unseen = write_corpus(tmp_path / "unseen", [1] * 9 + [40], clips_per_shard=10, speakers=("anna",))
    clip = decode_clip(list(ShardSet(unseen).clips())[-1], config)
    (made,) = said(network, [clip], "ddim", 10)
    motion, truth = (made - clip.template).reshape(40, -1), motion_of(spoken(40, 9)[0]).reshape(40, -1)
    assert np.square(motion - truth).mean() < 0.2 * np.square(truth - truth.mean(axis=0)).mean()
