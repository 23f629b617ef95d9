"""The release's denoiser and sampler written from the specification with torch's own attention: an oracle, slow as the release.

As there, masks and biases are tables over all frames, made anew in every step; sound and tokens are projected in every step;
and the loop runs over vertices. It reads the weights of ours by name and shares no line with it.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def bias_table(heads: int, period: int, frames: int) -> Tensor:
    """(H, T, T + 2), entry by entry."""
    slopes = [2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)]
    table = torch.zeros(heads, frames, frames + 2)
    for head, slope in enumerate(slopes):
        for i in range(frames):
            for j in range(frames):
                table[head, i, j + 2] = -slope * ((i - j) // period if j <= i else (j - i - 1) // period)
    return table


def own_sound_only(frames: int) -> Tensor:
    """(T, T + 2) with 0 where a frame may look and −inf elsewhere: the tokens, and the sound of the frame itself."""
    return torch.cat((torch.zeros(frames, 2), torch.full((frames, frames), -math.inf).fill_diagonal_(0)), dim=1)


def positions(period: int, frames: int, channels: int, like: Tensor) -> Tensor:
    place = torch.arange(period).to(like)[:, None]
    angle = place * torch.exp(torch.arange(0, channels, 2).to(like) * (-math.log(10000.0) / channels))
    one = torch.zeros(period, channels).to(like)
    one[:, 0::2], one[:, 1::2] = angle.sin(), angle.cos()
    return one.repeat(frames // period + 1, 1)[:frames]


def attention(w: Weights, name: str, query: Tensor, memory: Tensor, mask: Tensor, heads: int, padded: Tensor | None) -> Tensor:
    """torch's own multi-head attention, batch second."""
    made, _ = F.multi_head_attention_forward(
        query.transpose(0, 1), memory.transpose(0, 1), memory.transpose(0, 1), query.shape[2], heads,
        w[f"{name}.projection.weight"], w[f"{name}.projection.bias"], None, None, False, 0.0,
        w[f"{name}.out.weight"], w[f"{name}.out.bias"], training=False, need_weights=False, attn_mask=mask,
        key_padding_mask=padded,
    )  # fmt: skip
    return made.transpose(0, 1)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def denoise(
    w: Weights,
    x: Tensor,
    step: Tensor,
    style: Tensor,
    heard: Tensor,
    bias: Tensor,
    period: int,
    heads: int,
    layers: int = 1,
    padded: Tensor | None = None,
    tokens_behind: bool = False,
) -> Tensor:
    """x0 (B, T, X). `bias`: the whole table; it and the mask are repeated over batch and heads, as the release does.

    padded: (B, T) bool. tokens_behind: the paper's order, tokens after the frames, with their columns of bias.
    """
    batch, frames, _ = x.shape
    half = 384 if "denoiser.step1.weight" not in w else w["denoiser.step1.weight"].shape[1] // 2
    angle = step[:, None] * torch.exp(torch.arange(half).to(x) * (-math.log(10000.0) / half))
    code = torch.cat([angle.cos(), angle.sin()], dim=1)
    step_tokens = linear(w, "denoiser.step2", F.silu(linear(w, "denoiser.step1", code)))
    style_tokens = style @ w["denoiser.style.weight"]
    channels = step_tokens.shape[1] // layers
    memory = linear(w, "denoiser.audio_in", heard)
    h = linear(w, "denoiser.motion_in", x) + positions(period, frames, channels, x)
    own = own_sound_only(frames).to(x)
    hidden = None if padded is None else torch.cat([torch.zeros(batch, 2, dtype=torch.bool), padded], dim=1)
    if tokens_behind:
        bias, own = (torch.cat([table[..., 2:], table[..., :2]], dim=-1) for table in (bias, own))
        hidden = None if hidden is None else torch.cat([hidden[:, 2:], hidden[:, :2]], dim=1)
    for layer in range(layers):
        name, cut = f"denoiser.layers.{layer}", slice(layer * channels, (layer + 1) * channels)
        tokens = torch.stack([style_tokens[:, cut], step_tokens[:, cut]], dim=1)

        def beside(rows: Tensor, tokens: Tensor = tokens) -> Tensor:
            return torch.cat([rows, tokens] if tokens_behind else [tokens, rows], dim=1)

        u = norm(w, f"{name}.norm1", h)
        every = bias.to(x).repeat(batch, 1, 1)
        h = h + attention(w, f"{name}.self_attention", u, beside(u), every, heads, hidden)
        u = norm(w, f"{name}.norm2", h)
        h = h + attention(w, f"{name}.cross_attention", u, beside(memory), own, heads, hidden)
        u = norm(w, f"{name}.norm3", h)
        h = h + linear(w, f"{name}.linear2", F.gelu(linear(w, f"{name}.linear1", u)))
    return linear(w, "denoiser.motion_out", h)


def alphas_cumprod() -> Tensor:
    n = torch.arange(1000, dtype=torch.float64)
    beta = (0.00085**0.5 + n / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2
    return torch.cumprod(1 - beta, dim=0)


def sample(x: Tensor, network: Callable[[Tensor, int], Tensor], sampler: str, numbers: list[int], stride: int = 20) -> Tensor:
    """From noise to x0 over all vertices, by the two formulas of the specification, at the steps `numbers`."""
    gamma = alphas_cumprod()
    for index, n in enumerate(numbers):
        x0 = network(x, n)
        if sampler == "release":
            after = gamma[n - stride] if n - stride >= 0 else gamma[0]
            x = (after.sqrt() + (1 - after).sqrt()).item() * x0
        else:
            after = gamma[numbers[index + 1]] if index + 1 < len(numbers) else torch.ones(())
            epsilon = (x - gamma[n].sqrt().item() * x0) / (1 - gamma[n]).sqrt().item()
            x = after.sqrt().item() * x0 + (1 - after).sqrt().item() * epsilon
    return x
