"""What a trained network hears of a sound of one's own: the column that its clips had, made of the sound alone."""

import numpy as np

from models.hearing import Audio
from models.speech.encoders import encoder
from models.speech.features import ROWS_PER_SECOND, speech_features
from stages.spectrograms import SpectrogramParams, mel_spectrogram


def column(
    audio: Audio, speech_encoder: str, sound: np.ndarray, rate: int, frames: int, fps: int, spectrograms: SpectrogramParams
) -> np.ndarray:
    """`(2T, D)` float32 at 25 fps: the column's rows for T `frames` of mono samples at `rate` Hz; 16 kHz for the speech column.

    speech_encoder: which of models/speech made that, if it is "speech". Raises EncoderMissing.
    """
    if audio == "mel":
        return mel_spectrogram(sound, rate, frames, fps, spectrograms)
    return speech_features(encoder(speech_encoder), sound, round(ROWS_PER_SECOND * frames / fps))
