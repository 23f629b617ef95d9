"""Denoising diffusion (Ho et al., arXiv 2006.11239) as pure functions of the noise level.

    x0       clean data
    gamma    noise level of x_t: alphas_cumprod at step t, or anything between two steps. 1 is clean, 0 is noise only
    epsilon  the standard normal noise in x_t = sqrt(gamma) x0 + sqrt(1 - gamma) epsilon

A network that is told gamma, and not t, can be sampled with another number of steps than it was trained with: a new
schedule of N steps, and no subset of the training steps. In sampling a whole batch is at one step: gamma is a float.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Prediction = Literal["epsilon", "x0"]
MAX_BETA = 0.999  # as Nichol & Dhariwal clip the cosine's last step, which would be 1


@dataclass(frozen=True)
class NoiseSchedule:
    """How gamma falls from almost 1 to almost 0.

    "cosine": gamma(u) = cos²((u + 0.008) / 1.008 · π/2) over u in [0, 1] (Nichol & Dhariwal, arXiv 2102.09672).
    "linear": beta_t = 1 - gamma_t / gamma_{t-1} rises from `linear_start` to `linear_end` over `timesteps` steps.
    "scaled_linear": the root of beta rises so, between the roots of the same two (latent diffusion, arXiv 2112.10752).
    """

    name: Literal["cosine", "linear", "scaled_linear"]
    timesteps: int
    linear_start: float
    linear_end: float

    def alphas_cumprod(self, steps: int) -> Tensor:
        """gamma after each of `steps` steps, falling: (steps,) float64, as 1 - gamma loses digits in float32."""
        if self.name == "cosine":
            u = torch.arange(steps + 1, dtype=torch.float64) / steps
            gamma = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = 1 - gamma[1:] / gamma[:-1]
        else:
            # Fewer steps must add as much noise in all: the same betas 100 times instead of 2000 end at gamma = 0.6.
            scale = self.timesteps / steps
            power = 0.5 if self.name == "scaled_linear" else 1.0
            start, end = ((scale * beta) ** power for beta in (self.linear_start, self.linear_end))
            betas = torch.linspace(start, end, steps, dtype=torch.float64) ** (1 / power)
        return torch.cumprod(1 - betas.clamp(max=MAX_BETA), dim=0)


def add_noise(x0: Tensor, epsilon: Tensor, gamma: Tensor | float) -> Tensor:
    """x_t of the forward process (DDPM eq. 4); `gamma` broadcasts against x0."""
    return gamma**0.5 * x0 + (1 - gamma) ** 0.5 * epsilon


def predicted_x0(output: Tensor, prediction: Prediction, x_t: Tensor, gamma: float) -> Tensor:
    """x0 according to a network's output. Samplers of images clamp it to [-1, 1], as released; latents have no such bounds."""
    return output if prediction == "x0" else (x_t - (1 - gamma) ** 0.5 * output) / gamma**0.5


def ddpm_step(x_t: Tensor, x0: Tensor, gamma: float, gamma_next: float, epsilon: Tensor) -> Tensor:
    """Ancestral step (DDPM eq. 6 and 7) to noise level `gamma_next`; the last goes to 1 and gives x0, with no noise."""
    beta = 1 - gamma / gamma_next
    x0_weight = gamma_next**0.5 * beta / (1 - gamma)
    x_t_weight = (1 - beta) ** 0.5 * (1 - gamma_next) / (1 - gamma)
    variance = beta * (1 - gamma_next) / (1 - gamma)  # the smaller of the two in DDPM §3.2
    return x0_weight * x0 + x_t_weight * x_t + variance**0.5 * epsilon


def ddim_step(x_t: Tensor, x0: Tensor, gamma: float, gamma_next: float) -> Tensor:
    """Deterministic step (DDIM, arXiv 2010.02502, eq. 12 with sigma 0) to noise level `gamma_next`, 1 in the end."""
    epsilon = (x_t - gamma**0.5 * x0) / (1 - gamma) ** 0.5
    return add_noise(x0, epsilon, gamma_next)


class Step(NamedTuple):
    """Where a sampler is, or was."""

    gamma: float
    x_t: Tensor  # at that noise level
    x0: Tensor  # predicted from it


def multistep(now: Step, before: Step | None, gamma_next: float) -> Tensor:
    """Deterministic step to `gamma_next` of second order in λ; of first order, DDIM's, where it begins and where it ends.

    DPM-Solver++ 2M (arXiv 2211.01095, algorithm 2); also the predictor of UniPC-2 (arXiv 2302.04867).
    """
    if before is None or gamma_next == 1:
        return ddim_step(now.x_t, now.x0, now.gamma, gamma_next)
    # x0 as it will be in the middle of the step, if it goes on as from the step before to this one.
    step, step_before = log_snr(gamma_next) - log_snr(now.gamma), log_snr(now.gamma) - log_snr(before.gamma)
    x0 = now.x0 + step / step_before / 2 * (now.x0 - before.x0)
    return ddim_step(now.x_t, x0, now.gamma, gamma_next)


def corrected(now: Step, before: Step | None, earlier: Step | None) -> Step:
    """`now` with its x_t made again from `before`, as its x0 tells where that step was going; `earlier` is before that.

    The corrector of UniPC-2 with B(h) = exp(h) - 1 (arXiv 2302.04867, algorithm 1). It asks no more of the network.
    """
    if before is None:
        return now
    difference = now.x0 - before.x0
    if earlier is None:
        x0 = before.x0 + difference / 2
    else:
        h = log_snr(now.gamma) - log_snr(before.gamma)
        ratio = (log_snr(earlier.gamma) - log_snr(before.gamma)) / h
        phi_1 = math.expm1(-h)
        phi_2 = phi_1 / -h - 1
        first, second = phi_2 / phi_1, 2 * (phi_2 / -h - 0.5) / phi_1
        weight = (first - second) / (1 - ratio)  # weights w and v of the two differences: w + v = first, ratio w + v = second
        x0 = before.x0 + weight / ratio * (earlier.x0 - before.x0) + (first - weight) * difference
    return now._replace(x_t=ddim_step(before.x_t, x0, before.gamma, now.gamma))


def log_snr(gamma: float) -> float:
    """λ: log of signal over noise, both as standard deviations."""
    return 0.5 * math.log(gamma / (1 - gamma))
