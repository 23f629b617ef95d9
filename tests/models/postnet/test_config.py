from dataclasses import replace

import pytest

from models.postnet.config import MAY, SAMPLE, Config
from models.presets import WrongConfig


def test_overrides_and_wrong_names():
    assert Config.from_dict("sample", {"steps": 300, "channels": [32, 64]}) == replace(SAMPLE, steps=300, channels=(32, 64))
    with pytest.raises(WrongConfig, match="postnet has no preset 'lrs3'; it has may, sample"):
        Config.from_dict("lrs3", {})


def test_guards_of_the_release():
    """§2.4: the clamp of the release's script, its moving average, and no projection unless one asks for it."""
    guards = MAY.guards
    assert (guards.clamp_std, guards.smoothing, guards.lle_share, guards.lle_neighbours) == (3.0, 0.2, 0.0, 10)


@pytest.mark.parametrize(
    "overrides, rule",
    [
        ({"channels": [32]}, "channels must be two"),
        ({"discriminator_channels": []}, "discriminator_channels"),
        ({"paired_weight": -0.1}, "weights and temperatures must be at least 0"),
        ({"person_clips": 0}, "person_clips"),
        ({"crop_frames": 4}, "crop_frames must be 0 or at least 8"),
        ({"collapse": 1.0}, "collapse must be in"),
        ({"lle_share": 1.5}, "lle_share must be in"),
        ({"smoothing": 1.0}, "smoothing must be in"),
        ({"blink": "often"}, "blink must be one of 'none', 'period'"),
        ({"val_every": 2000}, "at most steps"),
    ],
)
def test_what_cannot_be_is_refused(overrides, rule):
    with pytest.raises(WrongConfig, match=rule):
        Config.from_dict("sample", overrides)
