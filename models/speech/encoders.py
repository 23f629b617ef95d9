"""The speech encoders one can name, each loaded once in a process.

GeneFace reads hubert-large, DiffSpeaker hubert-base or wav2vec2-base; the last layer of each.
"""

from functools import cache
from pathlib import Path

from models.speech import hub, moonshine
from models.speech.base import Encoder

NAMES = (moonshine.NAME, *hub.HUB)


def fetch(name: str, folder: str = "") -> Path:
    """Where the encoder's files stand, fetched if need be. folder: a copy of a hub encoder to take instead, "" for none.

    What stands in a folder has to stay as it is: neither DVC nor the engine looks into it. Raises EncoderMissing and ValueError.
    """
    if name not in NAMES:
        raise ValueError(f"there is no speech encoder {name!r}; there are {', '.join(NAMES)}")
    if name != moonshine.NAME:
        return hub.complete(Path(folder)) if folder else hub.fetch(name)
    if folder:
        raise ValueError(f"{name} stands in its package: leave speech.folder in params.yaml empty")
    return moonshine.fetch()


@cache
def encoder(name: str, layer: int = -1, folder: str = "", device: str = "cpu") -> Encoder:
    """The encoder of this name. layer: whose output is given, −1 for the whole's. device: of hub encoders.

    Raises EncoderMissing and ValueError.
    """
    found = fetch(name, folder)
    if name != moonshine.NAME:
        return hub.HubEncoder(found, layer, device)
    if layer != -1:
        raise ValueError(f"{name} gives its output alone: set speech.layer in params.yaml to -1")
    return moonshine.Moonshine()
