from dataclasses import replace

import pytest

from models.autoencoder.config import PRESETS, SAMPLE, Config
from models.presets import WrongConfig


@pytest.mark.parametrize("preset, factor, size", [("paper_256", 4, 64), ("paper_512", 8, 64), ("sample", 4, 32)])
def test_latents_of_the_presets(preset, factor, size):
    config = PRESETS[preset]
    pixels = {"paper_256": 256, "paper_512": 512, "sample": 128}[preset]
    assert config.factor == factor and pixels // config.factor == size and config.latent_channels == 3


def test_overrides_and_wrong_names():
    assert Config.from_dict("sample", {"steps": 700, "channels": [32, 64]}) == replace(SAMPLE, steps=700, channels=(32, 64))
    with pytest.raises(WrongConfig, match="autoencoder has no preset 'paper'; it has paper_256, paper_512, sample"):
        Config.from_dict("paper", {})
    with pytest.raises(WrongConfig, match="has no field crops"):
        Config.from_dict("sample", {"crops": 32})


@pytest.mark.parametrize(
    "overrides, rule",
    [
        ({"channels": [48]}, "multiples of GroupNorm's 32"),
        ({"channels": []}, "multiples of GroupNorm's 32"),
        ({"codes": 0}, "sizes must be above 0"),
        ({"crop": 30}, "crop must be a multiple of 4"),
        ({"mirror": 1.5}, "mirror must be in"),
        ({"perceptual_weight": 1.0}, "perceptual_weight needs backbone"),
        ({"discriminator_weight": 0.75, "crop": 20}, "the discriminator needs a crop of 24 pixels at least"),
        ({"codebook_start": 1800}, "codebook_start must be below steps"),
        ({"frames_per_clip": 0}, "buffer_clips and frames_per_clip"),
        ({"val_every": 2000}, "at most steps"),
    ],
)
def test_what_cannot_be_is_refused(overrides, rule):
    with pytest.raises(WrongConfig, match=rule):
        Config.from_dict("sample", overrides)
