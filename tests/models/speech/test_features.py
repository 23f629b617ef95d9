"""Speech features: as many rows as asked for, each of its own moment, however long the sound and whatever is heard with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from data.media.audio import samples_at
from models.speech.base import RATE, Encoder, Piece
from models.speech.encoders import encoder
from models.speech.features import batch_features, speech_features
from models.speech.hub import HubEncoder
from tests.models.speech.untrained import save, speech_like, untrained

HUB = ["hubert-large", "hubert-base", "wav2vec2-base"]
MOONSHINE = "moonshine-tiny"
REAL = Path(__file__).parents[4] / "shared" / "media" / "person" / "EDTalk__pose_source2.mp4"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {name: save(untrained(name), tmp_path_factory.mktemp(name)) for name in HUB}


@pytest.fixture
def named(folders):
    return lambda name, layer=-1: encoder(name, layer, str(folders.get(name, "")))


class Counting(Encoder):
    """An encoder that notes the lengths of what goes through it at once."""

    def __init__(self, inner: Encoder):
        self.__dict__.update({field: getattr(inner, field) for field in Encoder.__annotations__})
        self.inner, self.lengths = inner, []

    def moments(self, samples):
        return self.inner.moments(samples)

    def rows(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        self.lengths.append(sum(len(piece.samples) for piece in pieces))
        return self.inner.rows(pieces)


@pytest.mark.parametrize("name", ["hubert-large", "wav2vec2-base", MOONSHINE])
@pytest.mark.parametrize("rows", [0, 1, 2, 50, 87, 151])
def test_there_are_as_many_rows_as_asked_for(named, name, rows):
    found = speech_features(named(name), speech_like(2), rows)
    assert found.shape == (rows, named(name).width)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", [*HUB, MOONSHINE])
def test_the_convolutions_are_those_that_the_encoder_says(named, name):
    one = named(name)
    for rows in (7, 20):
        length = one.field + (rows - 1) * one.stride
        whole, short = (one.rows([Piece(sound, one.moments(sound))])[0] for sound in (noise(length), noise(length - 1)))
        assert (len(whole), len(short)) == (rows, rows - 1)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("name", HUB)
def test_hub_encoders_give_what_transformers_gives(folders, named, name):
    """Oracle: the model and its own preparation, on sound with the half field beside it that centres row i on (i + ½) / 50 s."""
    sound = speech_like(2)
    prepared = Wav2Vec2FeatureExtractor.from_pretrained(folders[name])(sound, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        heard = untrained(name)(torch.nn.functional.pad(prepared.input_values, (40, 40)), output_hidden_states=True)
    np.testing.assert_allclose(speech_features(named(name), sound, 100), heard.last_hidden_state[0], atol=2e-4)
    np.testing.assert_allclose(speech_features(named(name, 2), sound, 100), heard.hidden_states[2][0], atol=2e-4)


@pytest.mark.parametrize("name", HUB)
def test_rows_are_centred_on_their_fiftieths(named, name):
    """Turning the sign of an instant changes the row around it most; read below the attention, which spreads it."""
    sound = noise(3 * RATE)
    for row in (40, 71, 110):
        centre = round((row + 0.5) * RATE / 50)
        sound[centre - 80 : centre + 80] *= 5
        turned = sound.copy()
        turned[centre - 80 : centre + 80] *= -1
        found, other = (speech_features(named(name, 0), heard, 150) for heard in (sound, turned))
        assert np.abs(found - other).mean(axis=1).argmax() == row


def test_moonshine_s_rows_tell_the_loudness_of_their_own_moment():
    """A linear reading of loudness, learned from one half of the sound, fits the other best without a shift."""
    sound, rows = speech_like(20), 1000
    features = speech_features(encoder(MOONSHINE), sound, rows)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    loudness = np.log(np.mean(sound.reshape(rows, -1) ** 2, axis=1) + 1e-5)
    fits = {}
    for shift in range(-4, 5):
        learned, held_out = (np.arange(*span) for span in ((10, 500), (500, 990)))
        products = features[learned].T @ features[learned] + 30 * np.eye(features.shape[1])
        target = loudness[learned - shift] - loudness[learned - shift].mean()
        reading = np.linalg.solve(products, features[learned].T @ target)
        fits[shift] = np.corrcoef(features[held_out] @ reading, loudness[held_out - shift])[0, 1]
    assert abs(max(fits, key=fits.__getitem__)) <= 1, fits
    assert fits[0] > 0.8


@pytest.mark.parametrize("name", HUB)
def test_pieces_have_the_rows_of_the_whole_up_to_the_transformer(named, monkeypatch, name):
    """Also where a base model normalises over time, and the sound is loud in one piece and silent in another."""
    sound = speech_like(28)
    sound[12 * RATE :] *= 0.02
    one = named(name, 0)
    pieces = speech_features(one, sound, 1400)
    monkeypatch.setattr(HubEncoder, "piece_s", 1000.0)
    np.testing.assert_allclose(pieces, speech_features(one, sound, 1400), atol=1e-4)


@pytest.mark.parametrize("name", ["hubert-large", "wav2vec2-base"])
def test_long_sound_has_no_seam_and_nearly_the_features_of_the_whole(named, monkeypatch, name):
    sound, one = speech_like(28), named(name)
    pieces = speech_features(one, sound, 1400)
    monkeypatch.setattr(HubEncoder, "piece_s", 1000.0)
    whole = speech_features(one, sound, 1400)
    assert np.sqrt(np.mean((pieces - whole) ** 2)) < 0.1 * whole.std(axis=0).mean()
    steps, of_whole = (np.linalg.norm(np.diff(features, axis=0), axis=1) for features in (pieces, whole))
    assert np.abs(steps - of_whole).max() < 0.1 * of_whole.max()


@pytest.mark.parametrize(("name", "longest_s"), [("wav2vec2-base", 20.1), (MOONSHINE, 2.1)])
def test_memory_does_not_grow_with_the_sound(named, name, longest_s):
    counting = Counting(named(name))
    found = speech_features(counting, speech_like(31.3), 1565)
    assert found.shape == (1565, counting.width)
    assert max(counting.lengths) < longest_s * RATE
    assert len(counting.lengths) > 1


@pytest.mark.parametrize("name", [*HUB, MOONSHINE])
def test_company_changes_nothing(named, name):
    """Clips of several lengths and a long one in pieces, in batches: as each alone."""
    sounds = [speech_like(seconds, seed) for seed, seconds in enumerate((1.0, 0.3, 21.0, 2.2))]
    rows = [50, 15, 1050, 110]
    together = batch_features(named(name), sounds, rows, batch=3)
    for sound, count, found in zip(sounds, rows, together, strict=True):
        np.testing.assert_allclose(found, speech_features(named(name), sound, count), atol=2e-4)


@pytest.mark.skipif(not REAL.exists(), reason="no real speech beside the repository (../shared/media)")
def test_moonshine_hears_the_same_in_a_cut_as_in_the_file():
    one, sound = encoder(MOONSHINE), samples_at(REAL, RATE, end=20)
    file = speech_features(one, sound, 1000)
    cuts = [speech_features(one, sound[start * RATE : (start + 3) * RATE], 150) for start in (5, 8, 13)]
    differences = np.concatenate([cut[50:100] - file[at : at + 50] for cut, at in zip(cuts, (300, 450, 700), strict=True)])
    assert np.sqrt(np.mean(differences**2)) < 0.3 * np.sqrt(file.var(axis=0).mean())


@pytest.mark.parametrize("name", ["hubert-large", "wav2vec2-base", MOONSHINE])
def test_silence_clipping_and_a_short_file_are_heard(named, name):
    for sound in (np.zeros(RATE, np.float32), np.sign(noise(RATE)), np.zeros(0, np.float32), noise(16)):
        found = speech_features(named(name), sound, 50)
        assert found.shape == (50, named(name).width)
        assert np.isfinite(found).all()


def test_sound_that_is_no_number_is_refused(named):
    broken = noise(RATE)
    broken[8000] = np.nan
    with pytest.raises(ValueError, match=r"sample 8000 \(0\.50 s\) of the sound is nan: repair"):
        speech_features(named("wav2vec2-base"), broken, 50)
