from dataclasses import replace

import pytest

from models.head.config import PRESETS, SAMPLE, Config
from models.presets import WrongConfig


def test_presets_and_overrides():
    assert PRESETS["may"].form == PRESETS["sample"].form == "grid" and PRESETS["may_mlp"].form == "mlp"
    assert PRESETS["may"].lip_start == 200_000 and SAMPLE.lip_start < SAMPLE.steps
    assert Config.from_dict("sample", {"steps": 1200, "lip_share": 0}) == replace(SAMPLE, steps=1200, lip_share=0.0)
    with pytest.raises(WrongConfig, match="head has no preset 'lrs3'; it has may, may_mlp, sample, sample_mlp"):
        Config.from_dict("lrs3", {})
    with pytest.raises(WrongConfig, match="has no field width"):
        Config.from_dict("sample", {"width": 32})


@pytest.mark.parametrize(
    "overrides, rule",
    [
        ({"form": "mesh"}, "form must be one of 'mlp', 'grid'"),
        ({"form": "mlp", "lip_share": 0.2}, "set lip_share to 0"),
        ({"windows": 4}, "windows must be odd"),
        ({"attention_start": 5000}, "attention_start must be below steps"),
        ({"cells": 48}, "cells must be a power of 2"),
        ({"finest": 8}, "finest must be at least"),
        ({"rays": 0}, "rays, batch_size and ray_samples"),
        ({"coarse_samples": 2}, "must be above 2"),
        ({"face_share": 1.5}, "face_share must be in"),
        ({"perceptual_weight": 0.01}, "perceptual_weight needs backbone"),
        ({"perceptual_weight": 0.01, "backbone": "vgg16.pth", "lip_share": 0.0}, "perceptual_weight needs lip_share"),
        ({"entropy_weight": -1.0}, "weights must be at least 0"),
        ({"decay_steps": 0}, "ambient_steps and decay_steps"),
        ({"val_every": 5000}, "at most steps"),
        ({"precision": "bf16-mixed"}, "precision must be one of '32-true'"),
    ],
)
def test_what_cannot_be_is_refused(overrides, rule):
    with pytest.raises(WrongConfig, match=rule):
        Config.from_dict("sample", overrides)
