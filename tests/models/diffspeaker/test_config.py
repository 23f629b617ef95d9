import json
from dataclasses import asdict, replace

import pytest

from models.diffspeaker.config import PRESETS, Config
from models.presets import WrongConfig


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name]
    assert Config(**json.loads(json.dumps(asdict(config)))) == config == Config.from_dict(name, {})


def test_overrides_change_a_preset():
    config = Config.from_dict("mesh", {"speakers": ["a", "b"], "audio": "mel", "audio_width": 256})
    assert config == replace(PRESETS["mesh"], speakers=("a", "b"), audio="mel", audio_width=256)
    assert config.styles == 2
    assert PRESETS["mesh"].styles == 1


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"vertexes": 3}, "no field vertexes"),
        ({"speakers": ["a", "a"]}, "speakers must differ"),
        ({"channels": 510}, "multiple of heads"),
        ({"audio": "deepspeech"}, "audio must be one of 'wav2vec2-base', 'hubert-base', 'speech', 'mel'"),
        ({"audio_width": 256}, "audio_width of an encoder must be 768"),
        ({"audio": "speech"}, "needs speech_encoder"),
        ({"guidance": 1.0}, "set silence above 0"),
        ({"steps": 100}, "val_every and log_every must be at most steps"),
        ({"beta_start": 0.5}, "betas must rise"),
    ],
)
def test_wrong_overrides_are_explained(overrides, message):
    with pytest.raises(WrongConfig, match=message):
        Config.from_dict("mesh", overrides)


def test_an_unknown_preset_is_explained():
    with pytest.raises(WrongConfig, match="vocaset, biwi"):
        Config.from_dict("large", {})
