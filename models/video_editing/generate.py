"""A checkpoint, clips and their speech to the clips with the lower face painted anew.

Frame 0 is given. Every later frame is painted from the frame painted before it, frame 0 and the sound around it, so the
frames of one clip wait for each other and a batch is made of different clips.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from data.shardset import Clip
from models.checkpoint import read_config, read_weights
from models.diffusion import Step, corrected, ddim_step, ddpm_step, multistep, predicted_x0
from models.hearing import check_width
from models.images import box_mask, to_uint8, to_unit
from models.noise import Noise, seed_of
from models.painting import Unpainted
from models.video_editing.config import Config
from models.video_editing.examples import DecodedClip, Example, audio_windows, decode_clip
from models.video_editing.network import VideoEditingUNet

Sampler = Literal["ddpm", "ddim", "dpm++", "unipc"]


def load(checkpoint: Path) -> VideoEditingUNet:
    """The network of a checkpoint folder, ready to generate. Raises BadCheckpoint."""
    network = VideoEditingUNet(read_config(checkpoint, Config))
    read_weights(checkpoint, network)
    # The layout that convolutions are fastest in: on a CPU it saves a sixth of the time of multi_speaker, a twelfth of sample.
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def regenerate(
    checkpoint: Path, clips: Sequence[Clip], sampler: Sampler, steps: int, batch_size: int, seed: int
) -> list[np.ndarray]:
    """`generate` for clips of a shard set, on the GPU if there is one. Noise follows from `seed` and the clip's key."""
    network = load(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    decoded = [decode_clip(clip, network.config) for clip in clips]
    return generate(network, decoded, [seed_of(seed, clip.key) for clip in clips], sampler, steps, batch_size)


@torch.inference_mode()
def generate(
    network: VideoEditingUNet,
    clips: Sequence[DecodedClip],
    seeds: Sequence[int],
    sampler: Sampler,
    steps: int,
    batch_size: int,
) -> list[np.ndarray]:
    """The frames of each clip, (T, H, W, 3) uint8, painted inside the boxes and untouched outside them.

    sampler: "ddpm" is ancestral sampling, as released. The others are deterministic and good with few steps: "ddim", and of
        second order "dpm++" (DPM-Solver++ 2M) and "unipc"; each step of any asks the network once.
    steps: of a new noise schedule, for each frame; any number, whatever the network was trained with.
    batch_size: clips painted at once. On a CPU no bit of a clip's result depends on it, or on the other clips.
    """
    if network.training:
        raise ValueError("the network is in training mode, where dropout is active: call network.eval()")
    if sampler not in get_args(Sampler) or steps < 1 or batch_size < 1:
        raise ValueError(f"no such sampling: {sampler!r} of {get_args(Sampler)}, {steps} steps, batch {batch_size}")
    gammas = network.config.noise_schedule.alphas_cumprod(steps).tolist()
    videos = [replace(clip, frames=clip.frames.copy()) for clip in clips]
    lengths = [len(video.frames) for video in videos]
    waiting = deque(clip for clip in sorted(range(len(videos)), key=lambda clip: -lengths[clip]) if lengths[clip] > 1)
    rows: list[tuple[int, int]] = []  # clip and frame of each row of the batch; a clip that ends makes way for the next
    size = network.config.image_size
    while rows or waiting:
        while waiting and len(rows) < batch_size:
            rows.append((waiting.popleft(), 1))
        batch = default_collate([videos[clip].example(frame) for clip, frame in rows])
        noise = Noise([(seeds[clip], frame) for clip, frame in rows], (3, size, size))
        # Rounded to 8 bits before it is the next frame's previous one, as the release reads its frames back from png.
        for (clip, frame), painted_HW3 in zip(rows, paint(network, batch, noise, sampler, gammas), strict=True):
            videos[clip].frames[frame] = painted_HW3
        rows = [(clip, frame + 1) for clip, frame in rows if frame + 1 < lengths[clip]]
    return [video.frames for video in videos]


def paint(
    network: VideoEditingUNet, batch: Example, noise: Callable[[int], Tensor], sampler: Sampler, gammas: Sequence[float]
) -> np.ndarray:
    """The batch's frames painted inside their boxes, (B, H, W, 3) uint8.

    noise: step -> standard normal (B, 3, H, W), for step len(gammas), where sampling starts, and below.
    gammas: noise levels of the schedule, falling.
    """
    device = next(network.parameters()).device
    batch = Example(*(tensor.to(device) for tensor in batch))
    real_B3HW, previous_B3HW, identity_B3HW = map(to_unit, batch[:3])
    if network.config.previous_dropout == 1:
        previous_B3HW = identity_B3HW  # as in all of its training
    mask_B1HW = box_mask(batch.box, network.config.image_size)
    x_t = torch.where(mask_B1HW, noise(len(gammas)).to(device), real_B3HW)
    # As trained: a network that has not met bfloat16 hardly tells the release's last noise levels apart in it.
    half = device.type == "cuda" and network.config.precision == "bf16-mixed"
    before: Step | None = None
    earlier: Step | None = None
    for step in reversed(range(len(gammas))):
        gamma, gamma_next = gammas[step], gammas[step - 1] if step else 1.0
        gamma_B = torch.full((len(x_t),), gamma, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            output = _row_by_row_on_cpu(network, x_t, previous_B3HW, identity_B3HW, batch.audio, gamma_B).float()
        now = Step(gamma, x_t, predicted_x0(output, network.config.prediction, x_t, gamma).clamp(-1, 1))
        if sampler == "unipc":
            now = corrected(now, before, earlier)
        if sampler == "ddpm":
            x_t = ddpm_step(now.x_t, now.x0, gamma, gamma_next, noise(step).to(device))
        elif sampler == "ddim":
            x_t = ddim_step(now.x_t, now.x0, gamma, gamma_next)
        else:
            x_t = multistep(now, before, gamma_next)
        before, earlier = now, before
        # Outside the mask the network has only ever seen clean pixels.
        x_t = torch.where(mask_B1HW, x_t, real_B3HW)
    return torch.where(mask_B1HW.permute(0, 2, 3, 1), to_uint8(x_t), batch.frame).cpu().numpy()


def _row_by_row_on_cpu(network: VideoEditingUNet, *inputs: Tensor) -> Tensor:
    """The network's output for a batch; on a CPU, a row's bits do not depend on the batch it is in.

    There MKL and oneDNN choose kernels, and so the order of summation, by the size of the batch, and threads cut it at
    places that depend on a row's position: the last bits differ. Batches would gain at most a fifth of the time.
    """
    if inputs[0].device.type != "cpu":
        return network(*inputs)
    return torch.cat([network(*row) for row in zip(*(tensor.split(1) for tensor in inputs), strict=True)])


class Painter:
    """As in models/painting.py. Each frame is painted from the one before, so none is read ahead and no batch is made."""

    def __init__(self, checkpoint: Path, sampler: str, steps: int, batch_size: int, seed: int) -> None:
        if sampler not in get_args(Sampler) or steps < 1 or batch_size < 1:
            known = ", ".join(get_args(Sampler))
            raise ValueError(
                f"no such sampling: {sampler}, {steps} steps, batch {batch_size}; there are {known}, of 1 step or more"
            )
        self._network = load(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
        self._config = config = self._network.config
        self._sampler: Sampler = sampler  # type: ignore[assignment]  # checked above
        self._gammas, self._seed = config.noise_schedule.alphas_cumprod(steps).tolist(), seed
        self.size, self.audio, self.speech_encoder = config.image_size, config.audio, config.speech_encoder

    def windows(self, rows_SD: np.ndarray) -> np.ndarray:
        check_width(rows_SD, self.audio, self._config.audio_width)
        return audio_windows(rows_SD, self.audio)

    def paint(self, frames: Iterable[Unpainted], before: np.ndarray | None) -> Iterator[np.ndarray]:
        for frame in frames:
            previous = frame.identity if before is None else before
            before = self._painted(frame.index, (frame.real, previous, frame.identity, frame.heard, frame.box))
            yield before

    @torch.inference_mode()
    def _painted(self, index: int, arrays: Sequence[np.ndarray]) -> np.ndarray:
        batch = Example(*(torch.from_numpy(array)[None] for array in arrays))
        (face_HW3,) = paint(
            self._network, batch, Noise([(self._seed, index)], (3, self.size, self.size)), self._sampler, self._gammas
        )
        return face_HW3
