"""Speech encoders hear what is there, when it is there, however long it lasts."""

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.speech import features as module
from models.speech.encoders import PACKAGED, RATE, EncoderMissing, encoder
from models.speech.features import speech_features

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": (32,) * 7}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Encoders of the hub's layout, small and untrained."""
    torch.manual_seed(0)
    made = {}
    for name, model in (
        ("wav2vec2-base", Wav2Vec2Model(Wav2Vec2Config(**SMALL))),
        ("hubert-large", HubertModel(HubertConfig(**SMALL, feat_extract_norm="layer", do_stable_layer_norm=True))),
    ):
        made[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(made[name])
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(made[name])
    return made


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("name", ["wav2vec2-base", "hubert-large", PACKAGED])
@pytest.mark.parametrize("rows", [0, 1, 2, 50, 87, 151])
def test_there_are_as_many_rows_as_asked_for(folders, name, rows):
    found = speech_features(encoder(name, -1, folders.get(name, "")), noise(2), rows)
    assert found.shape == (rows, encoder(name, -1, folders.get(name, "")).width)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["wav2vec2-base", "hubert-large", PACKAGED])
def test_the_convolutions_are_those_that_the_encoder_says(folders, name):
    """One sample more than a row's field gives no further row, a stride more does: measured, not believed."""
    one = encoder(name, -1, folders.get(name, ""))
    for rows in (7, 20):
        length = one.field + (rows - 1) * one.stride
        assert len(one.run(noise(1)[:length])) == rows
        assert len(one.run(noise(1)[: length - 1])) == rows - 1


def test_rows_are_centred_on_their_fiftieths(folders):
    """A click moves the rows around it and leaves far ones alone: read before the attention, in the first hidden layer."""
    one = encoder("hubert-large", 0, folders["hubert-large"])
    silence = np.zeros(2 * RATE, np.float32)
    silence[::2] = 1e-3  # so that normalising finds a variance
    for row in (20, 70):
        click = silence.copy()
        centre = round((row + 0.5) / 50 * RATE)
        click[centre - 20 : centre + 20] += 0.05
        moved = np.abs(speech_features(one, click, 100) - speech_features(one, silence, 100)).mean(axis=1)
        assert moved.argmax() == row


def test_hub_encoders_agree_with_transformers_own_use(folders):
    """Without padding, on whole rows: what `model(extractor(sound))` gives."""
    folder = folders["hubert-large"]
    sound, one = noise(1), encoder("hubert-large", -1, folder)
    extractor, model = Wav2Vec2FeatureExtractor.from_pretrained(folder), HubertModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(extractor(sound, sampling_rate=RATE, return_tensors="pt").input_values).last_hidden_state[0].numpy()
    normalised = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    np.testing.assert_allclose(one.run(normalised), expected, atol=2e-5)


def test_long_sound_goes_through_in_pieces_without_a_seam(folders, monkeypatch):
    one = encoder(PACKAGED)
    sound = noise(6) * np.sin(np.arange(6 * RATE) / 900).astype(np.float32)
    whole = speech_features(one, sound, 300)
    monkeypatch.setattr(module, "PIECE_S", 2.0)
    monkeypatch.setattr(module, "OVERLAP_S", 1.0)
    lengths = []
    counted = type(one)(**vars(one) | {"run": lambda heard: lengths.append(len(heard)) or one.run(heard)})
    pieces = speech_features(counted, sound, 300)
    assert pieces.shape == whole.shape
    assert max(lengths) <= 3.1 * RATE
    steps = np.linalg.norm(np.diff(pieces, axis=0), axis=1)
    joins = np.concatenate([steps[at - 2 : at + 52] for at in (100, 200)])
    assert joins.max() <= 1.2 * np.linalg.norm(np.diff(whole, axis=0), axis=1).max()


@pytest.mark.parametrize("name", ["wav2vec2-base", PACKAGED])
def test_silence_clipping_and_a_short_file_are_heard_and_nan_is_refused(folders, name):
    one = encoder(name, -1, folders.get(name, ""))
    for sound in (np.zeros(RATE, np.float32), np.sign(noise(1)), np.zeros(0, np.float32), noise(0.001)):
        found = speech_features(one, sound, 50)
        assert found.shape[0] == 50
        assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="not finite"):
        speech_features(one, np.full(RATE, np.nan, np.float32), 50)


def test_an_encoder_that_cannot_be_had_says_what_to_do(tmp_path):
    with pytest.raises(EncoderMissing, match=r"(?s)hubert-base-ls960.*speech\.folder.*moonshine-tiny"):
        encoder("hubert-base", -1, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"no speech encoder 'whisper'; there are moonshine-tiny"):
        encoder("whisper")
    with pytest.raises(ValueError, match="has one output"):
        encoder(PACKAGED, 3)
