import json
from dataclasses import asdict, replace

import pytest

from models.presets import WrongConfig
from models.video_editing.config import PRESETS, Config


def test_overrides_change_a_preset():
    config = Config.from_dict("sample", {"steps": 500, "learning_rate": 1, "channels": [32, 32], "attention_levels": []})
    assert config == replace(PRESETS["sample"], steps=500, learning_rate=1.0, channels=(32, 32), attention_levels=())
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name]
    assert Config(**json.loads(json.dumps(asdict(config)))) == config == Config.from_dict(name, {})


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"learning_rat": 1.0}, "no field learning_rat"),
        ({"steps": "many"}, "steps must be int, not 'many'"),
        ({"steps": True}, "steps must be int"),
        ({"channels": [32, 6.4]}, "channels must be int, not 6.4"),
        ({"prediction": "v"}, "prediction must be one of 'epsilon', 'x0'"),
        ({"channels": [32, 40]}, "GroupNorm's 32"),
        ({"head_channels": 40}, "multiples of head_channels"),
        ({"attention_levels": [3]}, "must be levels"),
        ({"steps": 100}, "val_every and log_every must be at most steps"),
        ({"image_size": 100}, "multiple of 16"),
    ],
)
def test_wrong_overrides_are_explained(overrides, message):
    with pytest.raises(WrongConfig, match=message):
        Config.from_dict("sample", overrides)


def test_an_unknown_preset_is_explained():
    with pytest.raises(WrongConfig, match="multi_speaker"):
        Config.from_dict("large", {})
