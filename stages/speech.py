"""The `speech` column: what a pretrained encoder hears, 50 rows a second on the pictures' clock."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.media.audio import wav_samples
from data.shardset import Clip, Column, json_object, npy_bytes
from models.speech.base import RATE
from models.speech.encoders import encoder, fetch
from models.speech.features import ROWS_PER_SECOND, speech_features
from stages.columns import leave_empty, make_column
from stages.params import section

NO_ENCODER = "none"


@dataclass(frozen=True)
class SpeechParams:
    """`speech` in params.yaml."""

    encoder: Literal["none", "moonshine-tiny", "hubert-large", "hubert-base", "wav2vec2-base"]  # "none": no such column
    layer: int  # whose output is kept; −1 is that of the whole encoder, which the papers use
    folder: str  # a local copy of a hub encoder; "" fetches it from the model hub


def find_speech(clip: Clip, params: SpeechParams) -> Column:
    """One clip's `(round(50 · seconds), width)` float16 features.

    Half precision halves the largest column (hubert-large: 369 MB an hour), at an error of 2⁻¹¹ of each number.
    """
    about = json_object(clip.members["json"])
    sound, rate = wav_samples(clip.members["wav"])
    if rate != RATE:
        raise ValueError(f"speech encoders hear {RATE} Hz, the clip has {rate}: set align.sample_rate to {RATE}")
    rows = round(ROWS_PER_SECOND * about["frames"] / about["fps"])
    features = speech_features(encoder(params.encoder, params.layer, params.folder), sound, rows)
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"layer {params.layer} of {params.encoder} has values beyond half precision: choose another layer")
    return {"speech.npy": npy_bytes(half)}


def run(part: str) -> None:
    params = section("speech", SpeechParams)
    if params.encoder == NO_ENCODER:
        leave_empty("speech", part)
        return
    fetch(params.encoder, params.folder)  # here, once, without a time limit; not in each worker's first clip
    make_column("speech", find_speech, SpeechParams, part, reads=["align"], needs="wav")
