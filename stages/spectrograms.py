"""Log-mel spectrograms, 50 rows a second: at 25 fps exactly two for each video frame.

DiffusionVideoEditing (release, `data_preprocessing`): 16 kHz, n_fft 2048, window 640, hop 320, 256 Slaney mel bands, power,
in dB below the clip's own loudest value, floor −80.
"""

from dataclasses import dataclass

import librosa
import numpy as np

from data.media.audio import fit_length, wav_samples
from data.shardset import Clip, Column, Skipped, json_object, npy_bytes
from stages.columns import make_column

ROWS_PER_SECOND = 50


@dataclass(frozen=True)
class SpectrogramParams:
    """`spectrograms` in params.yaml."""

    n_fft: int  # samples of the Fourier transform
    window: int  # samples of the Hann window, padded with zeros to n_fft
    n_mels: int  # mel bands
    top_db: float  # dB below the loudest value at which the scale ends


def mel_spectrogram(sound: np.ndarray, rate: int, frames: int, fps: float, params: SpectrogramParams) -> np.ndarray:
    """`(round(50 * frames / fps), n_mels)` float32 in dB, from −top_db to 0, of mono samples in [-1, 1].

    Centred framing gives 1 + (samples − 1) // hop rows, so `samples = hop * rows − 1` gives all rows and not one more.
    Silence is −top_db throughout: measured against its own maximum it would read as loudest.
    """
    hop, rest = divmod(rate, ROWS_PER_SECOND)
    if rest:
        raise ValueError(f"{rate} Hz has no whole number of samples in 1/{ROWS_PER_SECOND} s: change align.sample_rate")
    rows = round(ROWS_PER_SECOND * frames / fps)
    power = librosa.feature.melspectrogram(
        y=fit_length(sound, hop * rows - 1),
        sr=rate,
        n_fft=params.n_fft,
        win_length=params.window,
        hop_length=hop,
        n_mels=params.n_mels,
        pad_mode="constant",
    )
    if not power.any():
        return np.full((rows, params.n_mels), -params.top_db, np.float32)
    return librosa.power_to_db(power, ref=np.max, top_db=params.top_db).T.clip(-params.top_db, 0).astype(np.float32)


def find_spectrogram(clip: Clip, params: SpectrogramParams) -> Column | Skipped:
    """One clip's mel column."""
    about = json_object(clip.members["json"])
    sound, rate = wav_samples(clip.members["wav"])
    return {"mel.npy": npy_bytes(mel_spectrogram(sound, rate, about["frames"], about["fps"], params))}


def run(part: str) -> None:
    make_column("spectrograms", find_spectrogram, SpectrogramParams, part, reads=["align"], needs="wav")
