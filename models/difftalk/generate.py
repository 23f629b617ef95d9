"""A checkpoint, clips and their speech to the clips with the lower face painted anew.

Frame 0 is given. Without the progressive reference no frame waits for another, so that a batch is made of a clip's frames.

B  batch     C, h, w  latents     S  pixels of a frame
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.media.video import decode_frames
from data.mesh import LANDMARKS_68
from data.shardset import Clip, npy_array
from models.autoencoder.generate import load as load_autoencoder
from models.autoencoder.network import Autoencoder
from models.checkpoint import BadCheckpoint, read_config, read_weights
from models.difftalk.config import Config
from models.difftalk.examples import AUTOENCODER, audio_windows, upper_face
from models.difftalk.masks import hidden, pixel_mask
from models.difftalk.network import DiffTalkUNet
from models.diffusion import Step, add_noise, corrected, ddim_step, multistep, predicted_x0
from models.hearing import check_members, check_width, heard_rows
from models.images import to_uint8, to_unit
from models.noise import Noise, seed_of
from models.painting import Unpainted

Solver = Literal["ddim", "dpm++", "unipc"]
# What a frame knows of its neighbours: nothing; the one painted before it, which is its reference (§3.3); or both, with which its
# latents are averaged after sampling, all frames having begun from one noise: against the jitter of independent ones.
Mode = Literal["independent", "progressive", "smoothed"]
SMOOTHING = 0.25, 0.5, 0.25  # weights of the latents of the frame before, of the frame and of the one after


def load(checkpoint: Path) -> tuple[DiffTalkUNet, Autoencoder]:
    """The two networks of a checkpoint folder, ready to generate. Raises BadCheckpoint."""
    network = DiffTalkUNet(read_config(checkpoint, Config))
    read_weights(checkpoint, network)
    autoencoder, config = load_autoencoder(checkpoint / AUTOENCODER), network.config
    below = autoencoder.config
    if (below.factor * config.latent_size, below.latent_channels) != (config.image_size, config.latent_channels):
        size = f"{config.image_size} pixels in {config.latent_channels} x {config.latent_size}²"
        raise BadCheckpoint(
            f"{checkpoint}: the network wants {size}, and its autoencoder has {below.latent_channels} channels of a "
            f"{below.factor}th of the pixels: train both again"
        )
    return network.eval().requires_grad_(False), autoencoder


def regenerate(checkpoint: Path, clips: Sequence[Clip], sampler: str, steps: int, batch_size: int, seed: int) -> list[np.ndarray]:
    """The frames of each clip of a shard set, (T, S, S, 3) uint8, painted inside the masks and untouched outside them.

    sampler: a solver, and after it a mode ("ddim progressive"); "independent" if none is named. steps: evaluations of the network
    for each frame. batch_size: frames of a clip painted at once; more than rounding depends on it in no mode. On the GPU if there
    is one. Noise follows from `seed` and the clip's key.
    """
    painter = Painter(checkpoint, sampler, steps, batch_size, seed)
    made = []
    for clip in clips:
        first, *others = painter.frames_of(clip)
        made.append(np.stack([first.real, *painter.painted(others, None, seed_of(seed, clip.key))]))
    return made


def timesteps(train_timesteps: int, steps: int) -> list[int]:
    """The schedule's steps at which the network is asked, falling: evenly spread, the last one 1 (release: 996, …, 6, 1)."""
    return [index * (train_timesteps // steps) + 1 for index in reversed(range(steps))]


class Painter:
    """As in models/painting.py."""

    def __init__(self, checkpoint: Path, sampler: str, steps: int, batch_size: int, seed: int) -> None:
        solver, _, mode = sampler.partition(" ")
        self._mode, self._batch_size, self._seed = mode or "independent", batch_size, seed
        self._network, self._autoencoder = load(checkpoint)
        self._config = config = self._network.config
        known = solver in get_args(Solver) and self._mode in get_args(Mode)
        if not known or not 1 <= steps < config.train_timesteps or batch_size < 1:
            raise ValueError(
                f"no such sampling: {sampler}, {steps} steps, batch {batch_size}; there are {', '.join(get_args(Solver))}, alone "
                f"or with one of {', '.join(get_args(Mode))} after it, of 1 to {config.train_timesteps - 1} steps"
            )
        self._solver = solver
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network.to(self._device), self._autoencoder.to(self._device)
        gammas = config.noise_schedule.alphas_cumprod(config.train_timesteps).tolist()
        steps_N = timesteps(config.train_timesteps, steps)
        # The last step leaves the noise of the schedule's first (release).
        self._schedule = [(step, gammas[step], gammas[after]) for step, after in zip(steps_N, [*steps_N[1:], 0], strict=True)]
        self.size, self.audio, self.speech_encoder = config.image_size, config.audio, config.speech_encoder

    def windows(self, rows_SD: np.ndarray) -> np.ndarray:
        check_width(rows_SD, self.audio, self._config.audio_width)
        return audio_windows(rows_SD, self.audio)

    def paint(self, frames: Iterable[Unpainted], before: np.ndarray | None) -> Iterator[np.ndarray]:
        return self.painted(frames, before, self._seed)

    def frames_of(self, clip: Clip) -> list[Unpainted]:
        """A clip's frames, its first one showing who it is. ValueError, naming the clip, if its members do not fit."""
        check_members(clip, ("mp4", "mask.npy", "landmarks.npy", f"{self.audio}.npy"))
        frames = decode_frames(clip.members["mp4"])
        if frames.shape[1:3] != (self.size, self.size):
            raise ValueError(f"clip {clip.key} has frames of {frames.shape[1:3]} pixels, and the network paints {self.size}")
        boxes_T4, landmarks_TP3 = (npy_array(clip.members[name]) for name in ("mask.npy", "landmarks.npy"))
        heard = audio_windows(heard_rows(clip, self.audio, self._config.audio_width, len(frames)), self.audio)
        points_T68x2 = landmarks_TP3[:, LANDMARKS_68, :2]
        return [
            Unpainted(index, real, frames[0], box, points, rows)
            for index, (real, box, points, rows) in enumerate(zip(frames, boxes_T4, points_T68x2, heard, strict=True))
        ]

    @torch.inference_mode()
    def painted(self, frames: Iterable[Unpainted], before: np.ndarray | None, seed: int) -> Iterator[np.ndarray]:
        """As `paint`, with another seed."""
        frames = iter(frames)
        if self._mode == "progressive":
            for frame in frames:
                reference = self._encoded([frame.identity if before is None else before])
                (before,) = self._decoded([frame], self._sampled([frame], reference, seed))
                yield before
            return
        latents = self._run(frames, seed)
        if self._mode == "smoothed":
            latents = smoothed(latents, None if before is None else self._encoded([before])[0])
        while batch := list(islice(latents, self._batch_size)):
            of_batch, latents_BChw = zip(*batch, strict=True)
            yield from self._decoded(of_batch, torch.stack(latents_BChw))

    def _run(self, frames: Iterator[Unpainted], seed: int) -> Iterator[tuple[Unpainted, Tensor]]:
        """Each frame with its latents (C, h, w), for the run's identity frame as the reference."""
        reference = None
        while batch := list(islice(frames, self._batch_size)):
            reference = self._encoded([batch[0].identity]) if reference is None else reference
            yield from zip(batch, self._sampled(batch, reference.expand(len(batch), -1, -1, -1), seed), strict=True)

    def _encoded(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 images (S, S, 3) -> latents (B, C, h, w)."""
        return self._autoencoder.encode(to_unit(torch.from_numpy(np.stack(images)).to(self._device)))

    def _mask(self, frame: Unpainted) -> np.ndarray:
        return pixel_mask(self._config.mask, self.size, frame.box, frame.landmarks)

    def _decoded(self, frames: Sequence[Unpainted], latents_BChw: Tensor) -> list[np.ndarray]:
        """The frames with what is decoded inside the mask, as far as that lies in the box."""
        decoded_BSS3 = to_uint8(self._autoencoder.decode(latents_BChw)).cpu().numpy()
        boxes = (pixel_mask("box", self.size, frame.box, frame.landmarks) for frame in frames)
        return [
            np.where((self._mask(frame) & box)[..., None], image, frame.real)
            for frame, box, image in zip(frames, boxes, decoded_BSS3, strict=True)
        ]

    def _sampled(self, frames: Sequence[Unpainted], reference_BChw: Tensor, seed: int) -> Tensor:
        """Latents (B, C, h, w) of the frames: one solver step after the other, from noise."""
        masks_BSS = np.stack([self._mask(frame) for frame in frames])
        masked_BChw = self._encoded(hidden(np.stack([frame.real for frame in frames]), masks_BSS))  # type: ignore[arg-type]
        heard, points = np.stack([frame.heard for frame in frames]), np.stack([frame.landmarks for frame in frames])
        tensors = (torch.from_numpy(array).to(self._device) for array in (heard, upper_face(points)))
        with self._precision():
            biases_B1K = self._network.biases(self._network.condition(*tensors))
        numbers = (0 if self._mode == "smoothed" else frame.index for frame in frames)
        noise = Noise([(seed, number) for number in numbers], tuple(masked_BChw.shape[1:]))
        x_t = noise(len(self._schedule)).to(self._device)
        keeps_real = self._config.keeps == "real"
        if keeps_real:
            real_BChw = self._encoded([frame.real for frame in frames])
            pixels_B1SS = torch.from_numpy(masks_BSS)[:, None].float().to(self._device)
            painted_B1hw = F.max_pool2d(pixels_B1SS, self.size // self._config.latent_size) > 0
        before: Step | None = None
        earlier: Step | None = None
        for left, (step, gamma, gamma_next) in zip(reversed(range(len(self._schedule))), self._schedule, strict=True):
            if keeps_real:
                x_t = torch.where(painted_B1hw, x_t, add_noise(real_BChw, noise(left).to(self._device), gamma))
            step_B = torch.full((len(frames),), step, device=self._device)
            with self._precision():
                output = self._network(x_t, masked_BChw, reference_BChw, step_B, biases_B1K).float()
            now = Step(gamma, x_t, predicted_x0(output, self._config.prediction, x_t, gamma))
            if self._solver == "unipc":
                now = corrected(now, before, earlier)
            x_t = ddim_step(now.x_t, now.x0, gamma, gamma_next) if self._solver == "ddim" else multistep(now, before, gamma_next)
            before, earlier = now, before
        return x_t

    def _precision(self) -> torch.autocast:
        """On a GPU, as trained."""
        half = self._device.type == "cuda" and self._config.precision == "bf16-mixed"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=half)


def smoothed(run: Iterator[tuple[Unpainted, Tensor]], before: Tensor | None) -> Iterator[tuple[Unpainted, Tensor]]:
    """Each frame's latents averaged with its neighbours'; at an end of the run, itself in the place of the one that lacks.

    before: latents of the frame before the run, if there is one.
    """
    now = next(run, None)
    while now is not None:
        frame, latents = now
        following = next(run, None)
        neighbours = (latents if before is None else before), latents, (latents if following is None else following[1])
        yield frame, torch.einsum("n,nchw->chw", torch.tensor(SMOOTHING, device=latents.device), torch.stack(neighbours))
        before, now = latents, following
