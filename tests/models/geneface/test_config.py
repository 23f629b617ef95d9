from dataclasses import replace

import pytest

from models.geneface.config import PRESETS, SAMPLE, Config
from models.presets import WrongConfig


def test_presets_and_overrides():
    assert PRESETS["may"].form == PRESETS["sample"].form == "grid" and PRESETS["may_mlp"].form == "mlp"
    assert Config.from_dict("sample", {"steps": 900, "learning_rate": 1}) == replace(SAMPLE, steps=900, learning_rate=1.0)
    with pytest.raises(WrongConfig, match="geneface has no preset 'lrs3'; it has may, may_mlp, sample"):
        Config.from_dict("lrs3", {})
    with pytest.raises(WrongConfig, match="has no field width"):
        Config.from_dict("sample", {"width": 32})


@pytest.mark.parametrize(
    "overrides, rule",
    [
        ({"form": "mesh"}, "form must be one of 'mlp', 'grid'"),
        ({"image_size": 1}, "image_size must be above 1"),
        ({"pose_octaves": -1}, "octaves must be at least 0"),
        ({"whitening": -0.1}, "whitening must be at least 0"),
        ({"frames_per_code": 0}, "frames_per_code must be above 0"),
        ({"frames": 0}, "frame_width and frames must be above 0"),
        ({"levels": 0}, "levels, level_features and log2_rows"),
        ({"color_hidden": 0}, "deform_hidden and color_hidden"),
        ({"coarsest": 64, "finest": 32}, "at most finest"),
        ({"head_aware": 1}, "head_aware must be bool"),
        ({"head_seen": 1.5}, "head_seen must be in"),
        ({"audio_std": 0.0}, "audio_width and audio_std"),
        ({"near": 1.0, "far": 0.5}, "near must be above 0 and below far"),
        ({"coarse_samples": 2}, "coarse_samples must be above 2"),
        ({"batch_size": 2}, "batch_size 1: the pixels are the batch"),
        ({"lower_half": -0.1}, "lower_half must be in"),
        ({"entropy_weight": -1.0}, "entropy_weight and gradient_clip"),
        ({"grid_learning_rate": 0.0}, "learning_rate and grid_learning_rate"),
        ({"learning_rate_decay": "linear"}, "learning_rate_decay must be one of"),
        ({"frames_per_clip": 0}, "buffer_clips and frames_per_clip"),
        ({"log_every": 0}, "val_every and log_every must be above 0"),
        ({"val_every": 5000}, "at most steps"),
    ],
)
def test_what_cannot_be_is_refused(overrides, rule):
    with pytest.raises(WrongConfig, match=rule):
        Config.from_dict("sample", overrides)
