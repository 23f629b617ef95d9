"""The speech column: 50 rows a second at any frame rate, the same from any worker; and what a wrong encoder costs."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from data.media.audio import wav_bytes
from data.shardset import Clip, Index, ShardSet, json_bytes, npy_array, write_index, write_shard
from models.speech.base import EncoderMissing
from models.speech.encoders import encoder
from models.speech.features import speech_features
from stages.params import section
from stages.speech import SpeechParams, find_speech, run
from tests.models.speech.untrained import save, speech_like, untrained
from tests.project import ROOT

PARAMS = section("speech", SpeechParams)


def clip(frames: int, fps: int = 25, rate: int = 16000, seed: int = 0) -> Clip:
    sound = speech_like(frames / fps + 0.1, seed)[: frames * rate // fps]
    return Clip(f"a/clip{seed}", {"wav": wav_bytes(sound, rate), "json": json_bytes({"frames": frames, "fps": fps})})


@pytest.mark.parametrize(("frames", "fps", "rows"), [(50, 25, 100), (31, 30, 52), (25, 25, 50), (7, 30, 12), (0, 25, 0)])
def test_a_clip_has_fifty_rows_a_second(frames, fps, rows):
    features = npy_array(find_speech(clip(frames, fps), PARAMS)["speech.npy"])
    assert features.shape == (rows, encoder(PARAMS.encoder, PARAMS.layer, PARAMS.folder).width)
    assert features.dtype == np.float16


def test_the_column_is_what_a_bare_file_gives_to_half_precision():
    sound = speech_like(2)
    aligned = Clip("a/b", {"wav": wav_bytes(sound, 16000), "json": json_bytes({"frames": 50, "fps": 25})})
    bare = speech_features(encoder(PARAMS.encoder), np.round(sound * 32767) / np.float32(32767), 100)
    np.testing.assert_allclose(npy_array(find_speech(aligned, PARAMS)["speech.npy"]), bare, rtol=2**-10, atol=1e-4)


def test_another_rate_is_an_error_that_says_what_to_change():
    with pytest.raises(ValueError, match=r"16000 Hz, the clip has 44100: set align\.sample_rate"):
        find_speech(clip(25, rate=44100), PARAMS)


def test_values_beyond_half_precision_are_an_error(tmp_path):
    model = untrained("wav2vec2-base")
    model.encoder.layers[-1].final_layer_norm.weight.data.mul_(1e6)
    folder = str(save(model, tmp_path / "loud"))
    with pytest.raises(ValueError, match="layer -1 of wav2vec2-base has values beyond half precision"):
        find_speech(clip(25), SpeechParams("wav2vec2-base", -1, folder))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with two aligned clips of a corpus; to be called with what `speech` in its params.yaml shall say."""
    monkeypatch.chdir(tmp_path)
    aligned = Path("data/aligned/some/0")
    aligned.mkdir(parents=True)
    write_index(aligned, Index.of([write_shard(aligned / "00000.tar", [clip(30, seed=0), clip(41, seed=1)])], {}))

    def configured(**speech) -> None:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        Path("params.yaml").write_text(yaml.safe_dump(params | {"speech": speech, "engine": params["engine"] | {"workers": 2}}))

    return configured


def test_two_workers_make_the_column_of_one_process(project):
    project(encoder="moonshine-tiny", layer=-1, folder="")
    run("some/0")
    for made, whole in zip(ShardSet("data/speech/some/0").clips(), (clip(30, seed=0), clip(41, seed=1)), strict=True):
        assert made.members == find_speech(whole, PARAMS)


def test_without_an_encoder_there_is_no_column(project):
    project(encoder="none", layer=-1, folder="")
    run("some/0")
    assert ShardSet("data/speech/some/0").keys == ()


def test_a_missing_encoder_is_told_once_before_any_clip(project, capfd):
    project(encoder="hubert-large", layer=-1, folder="nowhere")
    with pytest.raises(EncoderMissing, match=r"nowhere/config\.json does not exist"):
        run("some/0")
    assert not Path("data/speech/some/0").exists()
    assert "clip0" not in capfd.readouterr().err
