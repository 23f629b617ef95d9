"""Speech to a moving mesh, in the fast form: everything between noise and motion happens in C dimensions.

Both samplers make x' = a x0 + b x, and x0 = W_o h + b_o is linear in h, what the last layer makes of W_i x + b_i. So z = W_i x
can be followed instead of x, with M = W_i W_o made once, and the vertices come last, once:

    z' = a (M h + W_i b_o) + b z        sum' = a h + b sum        share' = a + b share
    motion = W_o sum + share b_o        exactly, as b = 0 in the last step of both: none of the noise is left

Keys and values of the sound and of the style are made once for each clip, those of the diffusion steps once for all, each frame
attends to three keys across, and no table of biases is kept for long clips.

    B  batch     T  frames     C  channels     V  vertices, X = 3V     N  steps     S, D  rows of audio, numbers of a row
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.shardset import Clip
from models.checkpoint import read_config, read_weights
from models.diffspeaker.config import Config
from models.diffspeaker.examples import SOUND_RATE, decode_clip, silence_like, style_of, unit_variance
from models.diffspeaker.network import DiffSpeaker, KeysValues, TokenKeysValues, joined
from models.diffspeaker.sound import UnusableSound, audio_for, clean_sound, encoded
from models.diffusion import NoiseSchedule
from models.noise import seed_of

Sampler = Literal["ddim", "release"]
VERTEX_BYTES = 2**24  # of the motion made from C dimensions in one piece


class Step(NamedTuple):
    """One step of a sampler: x' = a x0 + b x, where x0 is the network's answer to x at diffusion step n."""

    n: int
    a: float
    b: float


def sampler_steps(sampler: Sampler, steps: int, schedule: NoiseSchedule) -> list[Step]:
    """The steps of a sampler, from the noisiest on.

    "ddim": DDIM (arXiv 2010.02502, eq. 12 with sigma 0) at steps that begin at the last one of training ("trailing") and end at
    x0 itself.
    "release": what the library the release pins (diffusers 0.11) does, whose DDIM takes the predicted x0 for the noise:
    x' = (sqrt(gamma') + sqrt(1 − gamma')) x0, at steps 981, 961, … 1 where there are 50, and gamma' = gamma_0 in the end, which
    leaves the motion 1.0287 times as large as predicted. For released weights and published tables.
    """
    total = schedule.timesteps
    if sampler not in get_args(Sampler) or not 1 <= steps <= total:
        raise ValueError(f"no such sampling: {sampler!r} of {get_args(Sampler)}, {steps} of 1 to {total} steps")
    gammas = schedule.alphas_cumprod(total).tolist()
    if sampler == "release":
        stride = total // steps
        numbers = [min(index * stride + 1, total - 1) for index in reversed(range(steps))]
        after = [gammas[max(n - stride, 0)] for n in numbers]
        return [Step(n, math.sqrt(gamma) + math.sqrt(1 - gamma), 0.0) for n, gamma in zip(numbers, after, strict=True)]
    numbers = [round(total * index / steps) - 1 for index in range(steps, 0, -1)]
    made = []
    for n, gamma_next in zip(numbers, [*(gammas[n] for n in numbers[1:]), 1.0], strict=True):
        b = math.sqrt((1 - gamma_next) / (1 - gammas[n]))
        made.append(Step(n, math.sqrt(gamma_next) - b * math.sqrt(gammas[n]), b))
    return made


class Folded(NamedTuple):
    """The two vertex layers as one, and the noise as it looks between them."""

    matrix: Tensor  # (C, C), M = W_i W_o
    offset: Tensor  # (C,), W_i b_o
    bias: Tensor  # (C,), b_i
    noise: Tensor  # (C, C), R with R Rᵀ = W_i W_iᵀ: R ε is distributed as W_i x of standard normal x


@torch.inference_mode()
def fold(network: DiffSpeaker) -> Folded:
    """Once for each network: 150 GFLOP twice for BIWI."""
    inward, outward = network.denoiser.motion_in, network.denoiser.motion_out
    # Of eigenvalues, as a Cholesky factor does not exist where rounding makes a small one negative.
    values_C, vectors_CC = torch.linalg.eigh(inward.weight @ inward.weight.T)
    return Folded(
        inward.weight @ outward.weight,
        inward.weight @ outward.bias,
        inward.bias,
        vectors_CC * values_C.clamp(min=0).sqrt(),
    )


def load(checkpoint: Path) -> DiffSpeaker:
    """The network of a checkpoint folder, ready to generate. Raises BadCheckpoint."""
    network = DiffSpeaker(read_config(checkpoint, Config))
    read_weights(checkpoint, network)
    return network.eval()


def speak(
    checkpoint: Path,
    sound: np.ndarray,
    rate: int,
    template_V3: np.ndarray,
    style: str | Mapping[str, float] | None = None,
    sampler: Sampler = "ddim",
    steps: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """The face `template` saying `sound`: vertices (T, V, 3) float32, T = round(seconds x fps). Raises UnusableSound.

    sound: samples, mono or with a second axis of channels, at `rate` Hz; of any length.
    style: one of the training set's speakers; weights of several, for a style between them; None is the mean of all.
    Sound of more than 30 s is encoded in pieces that overlap.
    """
    network = load(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    config = network.config
    heard = clean_sound(sound, rate)
    frames = round(len(heard) / SOUND_RATE * config.fps)
    if not frames:
        raise UnusableSound(f"{len(heard) / SOUND_RATE:.3f} s of sound is less than a frame at {config.fps} fps")
    audio = audio_for(config, heard, frames)
    return move(network, [audio], [frames], [style_weights(config, style)], [template_V3], [seed], sampler, steps, 1)[0]


def regenerate(
    checkpoint: Path, clips: Sequence[Clip], sampler: Sampler, steps: int, batch_size: int, seed: int
) -> list[np.ndarray]:
    """`move` for clips of a shard set, on the GPU if there is one: vertices (T, V, 3) of each, T as in its vertices.npy.

    Everybody in his own style, or, if he was not in the training set, in the mean of all styles. Noise follows from `seed` and
    the clip's key.
    """
    network = load(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    decoded = [decode_clip(clip, network.config) for clip in clips]
    return move(
        network,
        [clip.audio for clip in decoded],
        [len(clip.motion) for clip in decoded],
        [clip.style for clip in decoded],
        [clip.template for clip in decoded],
        [seed_of(seed, clip.key) for clip in clips],
        sampler,
        steps,
        batch_size,
    )


@torch.inference_mode()
def move(
    network: DiffSpeaker,
    audio: Sequence[np.ndarray],
    frames: Sequence[int],
    styles: Sequence[np.ndarray],
    templates: Sequence[np.ndarray],
    seeds: Sequence[int],
    sampler: Sampler,
    steps: int,
    batch_size: int,
) -> list[np.ndarray]:
    """Vertices (T, V, 3) float32 of each clip.

    audio: rows (S, D) of the network's column, or (S,) samples at 16 kHz; frames: T; styles: weights (K,), see `style_weights`;
    templates: (V, 3). batch_size: clips denoised at once; longest first, as they are padded to the longest of their batch.
    """
    config = network.config
    if network.training:
        raise ValueError("the network is in training mode, where dropout is active: call network.eval()")
    if batch_size < 1:
        raise ValueError(f"batch_size must be above 0, not {batch_size}")
    for template_V3 in templates:
        if np.shape(template_V3) != (config.vertices, 3):
            raise ValueError(f"the template has the shape {np.shape(template_V3)}, not {(config.vertices, 3)}")
    schedule, folded = sampler_steps(sampler, steps, config.noise_schedule), fold(network)
    made: list[np.ndarray] = [np.empty(0)] * len(audio)
    order = sorted(range(len(audio)), key=lambda clip: -frames[clip])
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        frames_B = torch.tensor([frames[clip] for clip in chosen], device=folded.bias.device)
        style_BK = torch.from_numpy(np.stack([styles[clip] for clip in chosen])).to(folded.bias)
        noise_BTC = torch.zeros(len(chosen), frames[chosen[0]], config.channels)
        for row, clip in enumerate(chosen):
            random = np.random.default_rng(seeds[clip])
            noise_BTC[row, : frames[clip]] = torch.from_numpy(random.standard_normal((frames[clip], config.channels), np.float32))
        heard = [heard_by(network, [audio[clip] for clip in chosen], frames_B)]
        if config.guidance:
            silence = [silence_like(torch.from_numpy(audio[clip]), config).numpy() for clip in chosen]
            heard.append(heard_by(network, silence, frames_B))
        z_BTC = noise_BTC.to(folded.bias) @ folded.noise.T
        sum_BTC, share = denoise(network, folded, z_BTC, heard, style_BK, frames_B, schedule)
        for row, clip in enumerate(chosen):
            made[clip] = vertices(network, sum_BTC[row, : frames[clip]], share, templates[clip])
    return made


def denoise(
    network: DiffSpeaker,
    folded: Folded,
    z_BTC: Tensor,
    heard: Sequence[Tensor],
    style_BK: Tensor,
    frames_B: Tensor,
    schedule: Sequence[Step],
) -> tuple[Tensor, float]:
    """From W_i of the noise to `sum` (B, T, C) and `share`, of which `vertices` makes motion.

    heard: what the frames hear, (B, T, D); and, for guidance, what they hear in silence.
    """
    denoiser, guidance = network.denoiser, network.config.guidance
    styles = denoiser.keys_values(denoiser.style_tokens(style_BK))
    numbers_N = torch.tensor([step.n for step in schedule], device=z_BTC.device)
    all_steps = denoiser.keys_values([token.transpose(0, 1) for token in denoiser.step_tokens(numbers_N)])
    sounds = [denoiser.sound_keys_values(heard_BTD) for heard_BTD in heard]
    bias = denoiser.bias(frames_B)
    sum_BTC, share = torch.zeros_like(z_BTC), 0.0
    for index, step in enumerate(schedule):
        tokens = joined(styles, [at_step(layer, index, len(z_BTC)) for layer in all_steps])
        outputs = [denoiser.core(z_BTC + folded.bias, tokens, sound, bias) for sound in sounds]
        h_BTC = outputs[0] if len(outputs) == 1 else outputs[0] + guidance * (outputs[0] - outputs[1])
        z_BTC = step.a * (h_BTC @ folded.matrix.T + folded.offset) + step.b * z_BTC
        sum_BTC, share = step.a * h_BTC + step.b * sum_BTC, step.a + step.b * share
    return sum_BTC, share


def at_step(all_steps: TokenKeysValues, index: int, batch: int) -> TokenKeysValues:
    """Keys and values (B, 1, C) of one step, of those (1, N, C) of all."""

    def one(of_all: KeysValues) -> KeysValues:
        return KeysValues(*(each[:, index : index + 1].expand(batch, -1, -1) for each in of_all))

    return TokenKeysValues(*map(one, all_steps))


@torch.inference_mode()
def vertices(network: DiffSpeaker, sum_TC: Tensor, share: float, template_V3: np.ndarray) -> np.ndarray:
    """(T, V, 3) float32 of one clip: the only product with the vertices, in pieces, so that nothing else is as large."""
    config, outward = network.config, network.denoiser.motion_out
    if config.smoothing:
        sum_TC = smoothed(sum_TC)  # the same as smoothing the vertices, of which this is a linear map
    sum_TC = sum_TC * network.motion_scale
    template_X = torch.from_numpy(np.asarray(template_V3, np.float32).reshape(-1)).to(sum_TC)
    still_X = template_X + network.motion_mean_X + share * network.motion_scale * outward.bias
    made_TX = np.empty((len(sum_TC), 3 * config.vertices), np.float32)
    rows = max(1, VERTEX_BYTES // (4 * made_TX.shape[1]))
    for first in range(0, len(sum_TC), rows):
        piece = torch.addmm(still_X, sum_TC[first : first + rows], outward.weight.T)
        made_TX[first : first + rows] = piece.cpu().numpy()
    return made_TX.reshape(len(sum_TC), config.vertices, 3)


def smoothed(frames_TC: Tensor) -> Tensor:
    """Each frame the mean of itself and its neighbours; first and last as they are."""
    inner = (frames_TC[:-2] + frames_TC[1:-1] + frames_TC[2:]) / 3
    return torch.cat((frames_TC[:1], inner, frames_TC[-1:])) if len(frames_TC) > 2 else frames_TC


def style_weights(config: Config, style: str | Mapping[str, float] | None) -> np.ndarray:
    """Weights (K,) of a style; see `speak`. ValueError for somebody without one."""
    if style is None:
        return np.full(config.styles, 1 / config.styles, np.float32)
    weights = {style: 1.0} if isinstance(style, str) else dict(style)
    if unknown := sorted(weights.keys() - set(config.speakers)):
        raise ValueError(
            f"no style {', '.join(unknown)}: this checkpoint has {', '.join(config.speakers) or 'one for everybody'}"
        )
    total = sum(weights.values())
    if not math.isfinite(total) or total <= 0:
        raise ValueError(f"the weights of the styles add up to {total}, not to more than 0")
    return np.sum([weight / total * style_of(config, speaker) for speaker, weight in weights.items()], axis=0)


def heard_by(network: DiffSpeaker, audio: Sequence[np.ndarray], frames_B: Tensor) -> Tensor:
    """What each frame hears, (B, T, D): each clip by itself, as padding would change what the encoder hears."""
    device = frames_B.device
    if network.config.encodes:
        features = [encoded(network, torch.from_numpy(unit_variance(samples)).to(device)) for samples in audio]
    else:
        features = []
        for rows in audio:
            row_SD = torch.from_numpy(rows).to(network.motion_mean_X)
            features.append(network.features(row_SD[None], torch.tensor([len(rows)], device=device))[0][0])
    sizes_B = torch.tensor([len(rows) for rows in features], device=device)
    return network.heard(pad_sequence(features, batch_first=True), sizes_B, frames_B)
