"""A person and a sound to that person's motion.

T  frames, 25 a second     S = 2T  rows of sound     D  numbers of a row     X  204 numbers of a frame
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import read_config, read_weights
from models.motion import generate as motion_generate
from models.motion.network import MotionVAE
from models.postnet.config import Config
from models.postnet.examples import MOTION
from models.postnet.guards import Guards, guarded
from models.postnet.network import PostNet


@dataclass(frozen=True)
class Person:
    """A person's networks, ready to generate."""

    network: PostNet  # with the person's training motion, its mean and its standard deviation
    motion: MotionVAE  # what anybody would do, to the sound


def load(folder: Path) -> Person:
    """The networks of a checkpoint folder. Raises BadCheckpoint."""
    network = PostNet(read_config(folder, Config))
    read_weights(folder, network)
    return Person(network.eval().requires_grad_(False), motion_generate.load(folder / MOTION))


def speak(person: Person, speech_SD: np.ndarray, temperature: float, seed: int, guards: Guards) -> np.ndarray:
    """Motion (T, X) float32, centimetres, of the person saying (2T, D) rows of the generator's column; T is at least 1.

    temperature, seed: of what the generator draws, see models/motion/generate.py. guards: `person.network.config.guards`, or
    others. ValueError for sound that does not fit, and for guards that know the person of a checkpoint that does not.
    """
    return adapt(person.network, motion_generate.move(person.motion, speech_SD, temperature, seed), guards)


@torch.inference_mode()
def adapt(network: PostNet, motion_TX: np.ndarray, guards: Guards) -> np.ndarray:
    """Anybody's motion as the person's, (T, X) float32 both; see `speak`."""
    if network.training:
        raise ValueError("the network is in training mode, where batches are normalised as one: call network.eval()")
    if guards.know_the_person and not len(network.motion_NX):
        raise ValueError(
            "the checkpoint holds no motion of the person, which the guards need: set lle_share and clamp_std to 0, "
            "upper_share to 1 and blink to none"
        )
    motion_1TX = torch.from_numpy(motion_TX).to(network.motion_NX)[None]
    mask_1T = torch.ones(motion_1TX.shape[:2], dtype=torch.bool, device=motion_1TX.device)
    adapted_TX = network(motion_1TX, mask_1T)[0]
    return guarded(adapted_TX, guards, network.motion_NX, network.mean_X, network.std_X).cpu().numpy()
