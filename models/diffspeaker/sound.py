"""Sound of any kind to what the system hears: 16 kHz samples, rows of the mel column, rows of the encoder.

S  samples, or rows of D numbers, 50 a second
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly
from torch import Tensor

from data.media.audio import fit_length
from models.diffspeaker.config import Config
from models.diffspeaker.examples import ROWS_PER_SECOND, SHORTEST_SOUND, SILENCE, SOUND_RATE
from models.diffspeaker.network import DiffSpeaker, encoder_rows
from models.speech.encoders import encoder
from models.speech.features import speech_features

LOUDNESS_RANGE = 80.0  # dB, of the mel column
ENCODED_SECONDS, OVERLAP_SECONDS = 30, 4  # longer sound is encoded in pieces of so many seconds


class UnusableSound(ValueError):
    """Samples that no face can be moved to."""


def clean_sound(sound: np.ndarray, rate: int) -> np.ndarray:
    """Mono float32 samples at 16 kHz, of samples at any rate with any number of channels. Raises UnusableSound.

    Loudness is kept, and may exceed 1: both the encoders' samples and the mel column are relative to a clip's own.
    """
    if rate < 1 or sound.ndim not in (1, 2) or not sound.size:
        raise UnusableSound(f"no sound: samples of the shape {sound.shape} at {rate} Hz")
    if sound.dtype.kind not in "fi":
        raise UnusableSound(f"samples are {sound.dtype}, neither floats nor signed integers")
    samples = sound / np.iinfo(sound.dtype).max if sound.dtype.kind == "i" else sound.astype(np.float64)
    if samples.ndim == 2:
        samples = samples.mean(axis=int(samples.shape[0] > samples.shape[1]))
    if bad := int(np.count_nonzero(~np.isfinite(samples))):
        first = int(np.argmin(np.isfinite(samples)))
        raise UnusableSound(f"{bad} samples are not finite, the first at {first / rate:.3f} s")
    divisor = math.gcd(rate, SOUND_RATE)
    if rate != SOUND_RATE:
        length = round(len(samples) * SOUND_RATE / rate)
        samples = fit_length(resample_poly(samples, SOUND_RATE // divisor, rate // divisor), length)
    return samples.astype(np.float32)


def audio_for(config: Config, samples_S: np.ndarray, frames: int) -> np.ndarray:
    """What `generate.move` takes for mono sound at 16 kHz that lasts as long as `frames`: samples, or the rows of the column."""
    rows = round(ROWS_PER_SECOND * frames / config.fps)
    if config.audio == "mel":
        return mel_rows(samples_S, rows, config.audio_width)
    if config.audio == "speech":
        return speech_features(encoder(config.speech_encoder), samples_S, rows)
    return samples_S


def mel_rows(sound: np.ndarray, rows: int, bands: int) -> np.ndarray:
    """(rows, bands) float32 in dB: what stages/spectrograms.py makes of the sound with the parameters of the project.

    Made with transformers, as librosa has no place on this floor.
    """
    from transformers.audio_utils import mel_filter_bank, power_to_db, spectrogram, window_function

    hop = SOUND_RATE // ROWS_PER_SECOND
    power = spectrogram(
        fit_length(sound, hop * rows - 1),
        window_function(2 * hop, "hann"),
        frame_length=2 * hop,
        hop_length=hop,
        fft_length=2048,
        power=2.0,
        pad_mode="constant",
        mel_filters=mel_filter_bank(1025, bands, 0.0, SOUND_RATE / 2, SOUND_RATE, norm="slaney", mel_scale="slaney"),
        mel_floor=0.0,
    ).T
    if not power.any():
        return np.full((rows, bands), SILENCE["mel"], np.float32)
    decibels = power_to_db(power, reference=float(power.max()), db_range=LOUDNESS_RANGE)
    return decibels.clip(-LOUDNESS_RANGE, 0).astype(np.float32)


def encoded(network: DiffSpeaker, samples_S: Tensor) -> Tensor:
    """The encoder's rows (S', D) of one sound.

    Up to 30 s exactly as in training. Longer ones, whose attention would take memory by the square of their length, in
    pieces: each overlaps the next by 4 s, over which one fades into the other.
    """
    samples_S = F.pad(samples_S, (0, max(0, SHORTEST_SOUND - len(samples_S))))
    total = int(encoder_rows(torch.tensor(len(samples_S))))
    length, overlap = ENCODED_SECONDS * ROWS_PER_SECOND, OVERLAP_SECONDS * ROWS_PER_SECOND
    if total <= length:
        return _encode(network, samples_S)
    hop = SOUND_RATE // ROWS_PER_SECOND
    made_SD = samples_S.new_zeros(total, network.config.audio_width)
    weight_S1 = samples_S.new_zeros(total, 1)
    for first in range(0, total - overlap, length - overlap):
        last = min(first + length, total)
        rows_SD = _encode(network, samples_S[hop * first : hop * (last - 1) + SHORTEST_SOUND])
        place_S = torch.arange(1, last - first + 1, device=rows_SD.device)
        rise_S = place_S if first else torch.full_like(place_S, overlap)
        fall_S = place_S.flip(0) if last < total else torch.full_like(place_S, overlap)
        share_S1 = torch.minimum(rise_S, fall_S).clamp(max=overlap)[:, None]
        made_SD[first:last] += share_S1 * rows_SD
        weight_S1[first:last] += share_S1
    return made_SD / weight_S1


def _encode(network: DiffSpeaker, samples_S: Tensor) -> Tensor:
    rows_1SD, _ = network.features(samples_S[None], torch.tensor([len(samples_S)], device=samples_S.device))
    return rows_1SD[0]
