"""Sound as users have it: any rate, channels, length and loudness."""

from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch

from models.checkpoint import write_checkpoint
from models.diffspeaker import network as network_module
from models.diffspeaker import sound as sound_module
from models.diffspeaker.examples import unit_variance
from models.diffspeaker.generate import speak
from models.diffspeaker.network import DiffSpeaker
from models.diffspeaker.sound import UnusableSound, clean_sound, encoded, mel_rows
from stages.spectrograms import mel_spectrogram
from tests.media import voice
from tests.models.diffspeaker.corpus import SMALL, VERTICES, randomised
from tests.models.diffspeaker.test_network import tiny_encoder
from tests.stages.params import SPECTROGRAMS

TEMPLATE = np.zeros((VERTICES, 3), np.float32)


def tone(seconds, rate, channels=1):
    sound = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate).astype(np.float32)
    return sound if channels == 1 else np.repeat(sound[:, None], channels, axis=1)


@pytest.mark.parametrize("frames", [1, 25, 74])
def test_mel_rows_are_those_of_the_stage(frames):
    sound = librosa.resample(voice(3.0), orig_sr=44_100, target_sr=16_000)
    expected = mel_spectrogram(sound, 16_000, frames, 25, SPECTROGRAMS)
    made = mel_rows(sound, 2 * frames, SPECTROGRAMS.n_mels)
    assert made.shape == expected.shape and made.dtype == np.float32
    assert np.abs(made - expected).max() < 1e-2
    assert (mel_rows(np.zeros(16_000, np.float32), 50, 256) == -80).all()


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_16_kilohertz(rate):
    made = clean_sound(tone(1.5, rate), rate)
    assert made.dtype == np.float32 and len(made) == 24_000
    assert np.abs(made - tone(1.5, 16_000))[800:-800].max() < 0.01


def test_channels_and_integers():
    mono = clean_sound(tone(1, 44_100), 44_100)
    stereo = tone(1, 44_100, channels=2)
    assert np.allclose(clean_sound(stereo, 44_100), mono, atol=1e-6)
    assert np.allclose(clean_sound(stereo.T, 44_100), mono, atol=1e-6)
    assert np.allclose(clean_sound((tone(1, 44_100) * 32767).astype(np.int16), 44_100), mono, atol=1e-3)


@pytest.mark.parametrize(
    "sound, rate, message",
    [
        (np.zeros(0, np.float32), 16_000, "no sound"),
        (np.zeros((100, 2, 2), np.float32), 16_000, "no sound"),
        (np.zeros(100, np.float32), 0, "no sound"),
        (np.array([0.0, 0.1, np.nan, np.inf]), 2, "2 samples are not finite, the first at 1.000 s"),
        (np.zeros(100, np.uint8), 8000, "uint8"),
        (np.zeros(100, complex), 8000, "complex128"),
    ],
)
def test_unusable_sound_says_why(sound, rate, message):
    with pytest.raises(UnusableSound, match=message):
        clean_sound(sound, rate)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "mel"
    write_checkpoint(folder, randomised(SMALL), SMALL, "")
    return folder


@pytest.mark.parametrize(
    "sound, rate, frames",
    [
        (tone(0.03, 16_000), 16_000, 1),
        (tone(1, 16_000), 16_000, 25),
        (tone(7.31, 44_100, channels=2), 44_100, 183),
        (np.zeros(32_000, np.float32), 16_000, 50),
        (np.clip(9 * tone(1, 16_000), -1, 1), 16_000, 25),
        (1000 * tone(1, 16_000), 16_000, 25),
    ],
    ids=["one frame", "second", "stereo 44.1 kHz", "silence", "clipped", "loud"],
)
def test_the_face_moves_as_long_as_the_sound(checkpoint, sound, rate, frames):
    made = speak(checkpoint, sound, rate, TEMPLATE, style="ben", steps=2)
    assert made.shape == (frames, VERTICES, 3) and np.isfinite(made).all()


@pytest.mark.slow
def test_ten_minutes(checkpoint):
    made = speak(checkpoint, tone(600, 16_000), 16_000, TEMPLATE, {"anna": 0.3, "ben": 0.7}, steps=1)
    assert made.shape == (15_000, VERTICES, 3) and np.isfinite(made).all()


def test_less_than_a_frame_is_refused(checkpoint):
    with pytest.raises(UnusableSound, match=r"0.010 s of sound is less than a frame at 25 fps"):
        speak(checkpoint, tone(0.01, 16_000), 16_000, TEMPLATE)


@pytest.fixture
def hearing(monkeypatch):
    monkeypatch.setattr(network_module, "speech_encoder", tiny_encoder)
    torch.manual_seed(0)
    return DiffSpeaker(replace(SMALL, audio="wav2vec2-base", audio_width=768)).eval()


@torch.inference_mode()
def test_the_encoder_hears_short_sound_whole_and_long_sound_in_pieces(hearing, monkeypatch):
    monkeypatch.setattr(sound_module, "ENCODED_SECONDS", 4)
    monkeypatch.setattr(sound_module, "OVERLAP_SECONDS", 1)
    sound = torch.from_numpy(unit_variance(np.random.default_rng(0).normal(size=9 * 16_000)))

    def heard(first, last):
        samples = sound[first * 320 : (last - 1) * 320 + 400]
        return hearing.features(samples[None], torch.tensor([len(samples)]))[0][0]

    short = sound[: 199 * 320 + 80]
    assert torch.equal(encoded(hearing, short), heard(0, 199))
    rows, first, second, third = encoded(hearing, sound), heard(0, 200), heard(150, 350), heard(300, 449)
    assert rows.shape == (449, 768)
    fade = (torch.arange(1, 51) / 51)[:, None]
    between = torch.lerp(first[150:], second[:50], fade), torch.lerp(second[150:], third[:50], fade)
    expected = torch.cat((first[:150], between[0], second[50:150], between[1], third[50:]))
    assert torch.allclose(rows, expected, atol=1e-5)


@torch.inference_mode()
def test_the_shortest_sound_has_a_row(hearing):
    assert encoded(hearing, torch.zeros(1)).shape == (1, 768)


def test_sound_itself_can_be_spoken(hearing, tmp_path):
    write_checkpoint(tmp_path / "encoder", hearing, hearing.config, "")
    made = speak(tmp_path / "encoder", tone(0.6, 48_000, 2), 48_000, TEMPLATE, steps=2)
    assert made.shape == (15, VERTICES, 3)
