import pytest

from models.presets import WrongConfig
from models.video_editing.config import PRESETS, Config


@pytest.mark.parametrize(
    "preset, overrides, message",
    [
        ("sample", {"previous_perturbation": 0.5}, "set previous_dropout below 1"),
        ("multi_speaker", {"previous_perturbation": -0.5}, "previous_perturbation must be at least 0"),
        ("multi_speaker", {"audio_dropout": 1.5}, r"audio_dropout and mirror must be in \[0, 1\]"),
        ("multi_speaker", {"audio": "wav"}, "audio must be one of 'mel', 'speech'"),
        ("multi_speaker", {"audio_width": 288}, "audio_width of mel must be 256"),
        ("multi_speaker", {"audio": "speech", "audio_width": 288}, "needs speech_encoder"),
        ("multi_speaker", {"audio": "speech", "audio_width": 0, "speech_encoder": "hubert-base"}, "audio_width must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(preset, overrides, message):
    with pytest.raises(WrongConfig, match=message):
        Config.from_dict(preset, overrides)


def test_the_presets_of_the_paper_add_nothing_of_ours():
    for name in ("multi_speaker", "single_speaker"):
        config = PRESETS[name]
        assert (config.patch, config.prediction, config.from_identity, config.noise_level_scale) == (1, "epsilon", False, 1.0)
        assert (config.audio, config.audio_width, config.audio_mean, config.audio_std) == ("mel", 256, 0.0, 1.0)
        assert config.previous_perturbation == config.audio_dropout == config.previous_dropout == config.mirror == 0
        assert (config.identity, config.weight_decay, config.gradient_clip, config.ema_decay) == ("first", 0.0, 0.0, 0.9999)
        assert (config.precision, config.learning_rate, config.learning_rate_decay) == ("32-true", 5e-5, "none")
