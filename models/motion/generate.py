"""A checkpoint and a sound to the motion of a face that says it.

T  frames, 25 a second     S = 2T  rows of sound     D  numbers of a row     X  204 numbers of a frame     Z  latent channels
"""

from pathlib import Path

import numpy as np
import torch

from models.checkpoint import read_config, read_weights
from models.hearing import check_width
from models.motion.config import Config
from models.motion.network import STRIDE, MotionVAE


def load(folder: Path) -> MotionVAE:
    """The network of a checkpoint folder, ready to generate. Raises BadCheckpoint."""
    network = MotionVAE(read_config(folder, Config))
    read_weights(folder, network)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def move(network: MotionVAE, speech_SD: np.ndarray, temperature: float, seed: int) -> np.ndarray:
    """Motion (T, X) float32, centimetres, of a face that says (2T, D) rows of the network's column; T is at least 1.

    temperature: of the noise that latents begin from: 1 is the prior as it was learnt, 0 the same motion whatever the seed. The
    noise of the first seconds does not depend on how long the sound is. ValueError for sound that does not fit.
    """
    config, rows = network.config, len(speech_SD)
    if network.training:
        raise ValueError("the network is in training mode, where batches are normalised as one: call network.eval()")
    if rows % 2 or not rows:
        raise ValueError(f"{rows} rows of {config.audio} are no whole number of frames, of two rows each")
    check_width(speech_SD, config.audio, config.audio_width)
    frames = rows // 2
    latents = -(-frames // STRIDE)
    held_SD = np.pad(speech_SD.astype(np.float32), ((0, 2 * STRIDE * latents - rows), (0, 0)), mode="edge")
    noise_tZ = temperature * np.random.default_rng(seed).standard_normal((latents, config.latent_channels), np.float32)
    device = next(network.parameters()).device
    speech_1SD = torch.from_numpy(held_SD)[None].to(device)
    noise_1Zt = torch.from_numpy(noise_tZ.T.astype(np.float32))[None].to(device)
    mask_1T = torch.ones(1, STRIDE * latents, dtype=torch.bool, device=device)
    return network.sample(noise_1Zt, speech_1SD, mask_1T)[0, :frames].cpu().numpy()
