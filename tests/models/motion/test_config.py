import json
from dataclasses import asdict, replace

import pytest

from models.motion.config import PRESETS, Config
from models.presets import WrongConfig


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name]
    assert Config(**json.loads(json.dumps(asdict(config)))) == config == Config.from_dict(name, {})


def test_overrides_change_a_preset():
    config = Config.from_dict("lrs3", {"prior": "gaussian", "audio": "mel", "audio_width": 256})
    assert config == replace(PRESETS["lrs3"], prior="gaussian", audio="mel", audio_width=256)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"beta": 3}, "no field beta"),
        ({"prior": "normal"}, "prior must be one of 'flow', 'gaussian', 'none'"),
        ({"latent_channels": 3}, "must be even"),
        ({"kernel": 4}, "must be odd"),
        ({"flow_kernel": 2}, "must be odd"),
        ({"dilation_rate": 0}, "dilation_rate"),
        ({"speech_encoder": ""}, "needs speech_encoder"),
        ({"kl_weight": -1.0}, "no weight"),
        ({"crop_frames": 4}, "crop_frames"),
        ({"steps": 100}, "val_every and log_every must be at most steps"),
    ],
)
def test_wrong_overrides_are_explained(overrides, message):
    with pytest.raises(WrongConfig, match=message):
        Config.from_dict("lrs3", overrides)


def test_an_unknown_preset_is_explained():
    with pytest.raises(WrongConfig, match="lrs3, sample"):
        Config.from_dict("may", {})
