import json
from dataclasses import asdict

import pytest

from models.presets import WrongConfig
from models.syncnet.config import PRESETS, Config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name]
    assert Config(**json.loads(json.dumps(asdict(config)))) == config == Config.from_dict(name, {})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"width": 3}, "no field width"),
        ({"channels": [8, 8]}, "channels must be three"),
        ({"negatives": "hard"}, "negatives must be one of 'designed', 'release'"),
        ({"speech_encoder": ""}, "needs speech_encoder"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"mouth_offset": -1}, "noise must be at least 0"),
        ({"steps": 10}, "must be at most steps"),
    ],
)
def test_wrong_overrides_are_explained(overrides, message):
    with pytest.raises(WrongConfig, match=message):
        Config.from_dict("sample", overrides)


def test_an_unknown_preset_is_explained():
    with pytest.raises(WrongConfig, match="lrs3, sample"):
        Config.from_dict("large", {})
