"""The speech column has its rows on the pictures' clock, at any frame rate."""

import numpy as np
import pytest

from data.media.audio import wav_bytes
from data.shardset import Clip, json_bytes, npy_array
from stages.params import section
from stages.speech import SpeechParams, find_speech
from tests.media import voice

PARAMS = section("speech", SpeechParams)


@pytest.mark.parametrize(("frames", "fps", "rows"), [(50, 25, 100), (31, 30, 52), (25, 25, 50)])
def test_a_clip_has_fifty_rows_a_second(frames, fps, rows):
    sound = voice(frames / fps)[: frames * 16000 // fps]
    clip = Clip("a/b", {"wav": wav_bytes(sound, 16000), "json": json_bytes({"frames": frames, "fps": fps})})
    column = find_speech(clip, PARAMS)
    features = npy_array(column["speech.npy"])
    assert features.shape == (rows, 288)
    assert features.dtype == np.float16
    assert find_speech(clip, PARAMS) == column


def test_another_rate_is_an_error_that_says_what_to_change():
    clip = Clip("a/b", {"wav": wav_bytes(voice(1), 44100), "json": json_bytes({"frames": 25, "fps": 25})})
    with pytest.raises(ValueError, match=r"16000 Hz, the clip has 44100: set align\.sample_rate"):
        find_speech(clip, PARAMS)
