import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from models.given import Given
from models.syncnet import expert
from models.syncnet.examples import Pair, loaders
from models.syncnet.training import build, noisy
from models.trainer import Job, read_progress, train
from tests.models.syncnet.corpus import CONFIG, WIDTH, write_corpus


def test_noise_is_as_large_as_it_says_and_an_offset_the_same_in_all_frames():
    torch.manual_seed(0)
    still = Pair(torch.zeros(400, 10, WIDTH), torch.zeros(400, 5, 60), torch.ones(400, dtype=torch.bool))
    config = replace(CONFIG, audio_noise=0.5, audio_std=4.0, mouth_offset=0.3)
    heard = noisy(still, config)
    assert heard.speech.std().item() == pytest.approx(2, rel=0.02)
    assert heard.mouth.std().item() == pytest.approx(0.3, rel=0.02)
    assert torch.equal(heard.mouth, heard.mouth[:, :1].expand_as(heard.mouth))
    assert all(map(torch.equal, noisy(still, CONFIG), still))


def test_the_learning_rate_falls_along_half_a_cosine_wave():
    module = build(replace(CONFIG, steps=10), Given("train", "val"))
    made = module.configure_optimizers()
    rates = []
    for _ in range(10):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([3e-3 * 0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)])
    assert made["lr_scheduler"]["interval"] == "step"


def test_a_training_leaves_an_expert_that_judges_as_it_told(tmp_path):
    """More than 90 % of unseen pairs right (geneface.md §13), through the trainer."""
    shards = write_corpus(tmp_path / "train", [400] * 4)
    unseen = write_corpus(tmp_path / "val", [100, 100], first_seed=50)
    config = replace(
        CONFIG,
        channels=(16, 16, 16),
        res_blocks=0,
        batch_size=128,
        learning_rate=1e-2,
        steps=400,
        val_every=200,
        log_every=25,
        pairs_per_clip=200,
    )
    job = Job("syncnet", asdict(config), str(shards), str(unseen), {}, str(tmp_path / "work"), str(tmp_path / "out"))
    train(Job(**json.loads(json.dumps(asdict(job)))))
    rows = read_progress(tmp_path / "work/progress.jsonl")
    told = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in told] == [199, 399]
    assert told[-1]["val_accuracy"] > 0.9 and told[-1]["val_loss"] < 0.3
    assert {"train_loss", "train_accuracy"} <= rows[0].keys()

    network = expert.load(tmp_path / "out")
    pairs = [batch for batch in loaders(config, Given(shards, unseen))[1]]
    with torch.inference_mode():
        right = torch.cat([(network(batch.speech, batch.mouth) > 0.5) == batch.synced for batch in pairs])
    assert right.float().mean().item() == pytest.approx(told[-1]["val_accuracy"], abs=1e-6)

    first = (tmp_path / "out/model.safetensors").read_bytes()
    train(job)
    assert (tmp_path / "out/model.safetensors").read_bytes() == first, "killed after its last step, it makes the same"
