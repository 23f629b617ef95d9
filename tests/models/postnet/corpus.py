"""A person and other voices made by code, and networks small enough for tests."""

from dataclasses import replace
from pathlib import Path

import torch

from models.checkpoint import write_checkpoint
from models.given import Given
from models.motion.config import SAMPLE as MOTION_SAMPLE
from models.motion.config import SYNCNET
from models.motion.network import MotionVAE
from models.postnet.config import SAMPLE, Config
from models.postnet.network import PostNet
from tests.models.syncnet import corpus as spoken

MOTION_CONFIG = replace(
    MOTION_SAMPLE,
    audio_width=spoken.WIDTH,
    audio_std=1.0,
    condition_channels=8,
    latent_channels=4,
    channels=8,
    encoder_layers=1,
    decoder_layers=1,
    flow_steps=2,
    flow_channels=8,
    flow_layers=1,
)
CONFIG = replace(
    SAMPLE,
    channels=(8, 16),
    discriminator_channels=(16, 8),
    zero_start=False,
    adversarial_weight=0.85,
    sync_weight=0.10,
    paired_weight=0.05,
    sync_clips=32,
    batch_size=3,
    person_clips=2,
    crop_frames=16,
    learning_rate_decay="none",
    learning_rate=1e-3,
    steps=4,
    log_every=1,
    val_every=2,
    buffer_clips=8,
)


def randomised(config: Config, seed: int = 0) -> PostNet:
    """A network whose every weight matters, with moments of its own in its norms and a person in its memory."""
    torch.manual_seed(seed)
    network = PostNet(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.2, 1)
    if config.frames:
        network.remember(torch.randn(config.frames, 204) / 10)
    return network.eval()


def write_generator(folder: Path) -> Path:
    """A checkpoint of a generator of motion and of its expert, both untrained."""
    torch.manual_seed(7)
    expert = spoken.randomised(spoken.CONFIG)
    write_checkpoint(folder.parent / "expert", expert, expert.config, "")
    write_checkpoint(folder, MotionVAE(MOTION_CONFIG), MOTION_CONFIG, "", {SYNCNET: folder.parent / "expert"})
    return folder


def given(folder: Path) -> Given:
    """Of a person of three clips, with another held out, and of four voices."""
    return Given(
        spoken.write_corpus(folder / "train", [24, 40, 18]),
        spoken.write_corpus(folder / "val", [22, 31], first_seed=10),
        {
            "motion": write_generator(folder / "motion"),
            "voices": spoken.write_corpus(folder / "voices", [20, 33, 14, 26], first_seed=20),
        },
    )
