"""The released U-Net written from the specification in plain torch, on weights named and laid out as released: an oracle.

Nothing here comes from diffusers, or from the converter.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def layout(base: int, multipliers: tuple[int, ...], attends: set[int]) -> Shapes:
    """Names and shapes of official_checkpoints §2: two residual blocks a level, attention at these levels and in the middle."""
    shapes: Shapes = {}
    embedding = 4 * base

    def add(name: str, *weight: int) -> None:
        shapes.update({f"denoise_fn.{name}.weight": weight, f"denoise_fn.{name}.bias": weight[:1]})

    def residual(name: str, into: int, out: int) -> None:
        add(f"{name}.in_layers.0", into)
        add(f"{name}.in_layers.2", out, into, 3, 3)
        add(f"{name}.emb_layers.1", 2 * out, embedding)
        add(f"{name}.audio_emb_layers.1", 2 * out, embedding)
        add(f"{name}.out_layers.0", out)
        add(f"{name}.out_layers.3", out, out, 3, 3)
        if into != out:
            add(f"{name}.skip_connection", out, into, 1, 1)

    def attention(name: str, width: int) -> None:
        add(f"{name}.norm", width)
        add(f"{name}.qkv", 3 * width, width, 1)
        add(f"{name}.proj_out", width, width, 1)

    add("cond_embed.0", embedding, base)
    add("cond_embed.2", embedding, embedding)
    add("audio_cond_embed.0", embedding, 1024)
    add("audio_cond_embed.2", embedding, embedding)
    add("input_blocks.0.0", base, 9, 3, 3)
    widths = [base]
    for level, multiplier in enumerate(multipliers):
        for _ in range(2):
            residual(f"input_blocks.{len(widths)}.0", widths[-1], base * multiplier)
            if level in attends:
                attention(f"input_blocks.{len(widths)}.1", base * multiplier)
            widths.append(base * multiplier)
        if level < len(multipliers) - 1:
            residual(f"input_blocks.{len(widths)}.0", widths[-1], widths[-1])
            widths.append(widths[-1])
    width, block = widths[-1], 0
    residual("middle_block.0", width, width)
    attention("middle_block.1", width)
    residual("middle_block.2", width, width)
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for index in range(3):
            residual(f"output_blocks.{block}.0", width + widths.pop(), base * multiplier)
            width = base * multiplier
            if level in attends:
                attention(f"output_blocks.{block}.1", width)
            if index == 2 and level > 0:
                residual(f"output_blocks.{block}.{1 + (level in attends)}", width, width)
            block += 1
    add("out.0", base)
    add("out.2", 3, base, 3, 3)
    return shapes


def randomised(shapes: Shapes) -> Weights:
    """Weights every one of which matters, none being zero or one."""
    weights = {}
    for name, shape in shapes.items():
        is_norm = len(shape) == 1 and name.endswith(".weight")
        std = 0.3 if len(shape) == 1 else 0.7 / math.prod(shape[1:]) ** 0.5
        weights[name] = float(is_norm) + std * torch.randn(shape)
    return weights


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def conv(w: Weights, name: str, x: Tensor) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-5)


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def sinusoid(gamma: Tensor, width: int) -> Tensor:
    """[cos || sin] of gamma itself, at frequencies from 1 rad down to almost 1e-4."""
    frequencies = torch.exp(-math.log(1e4) * torch.arange(width // 2) / (width // 2))
    angles = gamma[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def residual_block(w: Weights, name: str, x: Tensor, t: Tensor, a: Tensor, resample: str) -> Tensor:
    h = silu(norm(w, f"{name}.in_layers.0", x))
    if resample == "down":
        h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
    if resample == "up":
        h, x = (z.repeat_interleave(2, -1).repeat_interleave(2, -2) for z in (h, x))
    h = norm(w, f"{name}.out_layers.0", conv(w, f"{name}.in_layers.2", h))
    scale_t, shift_t = linear(w, f"{name}.emb_layers.1", silu(t))[:, :, None, None].chunk(2, dim=1)
    scale_a, shift_a = linear(w, f"{name}.audio_emb_layers.1", silu(a))[:, :, None, None].chunk(2, dim=1)
    h = (1 + scale_a) * ((1 + scale_t) * h + shift_t) + shift_a
    h = conv(w, f"{name}.out_layers.3", silu(h))
    return h + (conv(w, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in w else x)


def attention(w: Weights, name: str, x: Tensor, head: int) -> Tensor:
    """One convolution of width 1 gives for each head in turn its q, k and v."""
    B, C, H, W = x.shape
    z = norm(w, f"{name}.norm", x).flatten(2)
    qkv = F.conv1d(z, w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"])
    q, k, v = qkv.reshape(B * (C // head), 3 * head, H * W).split(head, dim=1)
    weights = torch.einsum("bct,bcs->bts", q * head**-0.25, k * head**-0.25).softmax(dim=-1)
    out = torch.einsum("bts,bcs->bct", weights, v).reshape(B, C, H * W)
    return x + F.conv1d(out, w[f"{name}.proj_out.weight"], w[f"{name}.proj_out.bias"]).reshape(x.shape)


def u_net(weights: Weights, images: Tensor, gamma: Tensor, mel: Tensor, head: int) -> Tensor:
    """`images`: noisy, previous and identity frame in 9 channels. The weights themselves tell what follows what."""
    w = {name.removeprefix("denoise_fn."): tensor for name, tensor in weights.items()}
    base = w["out.0.weight"].shape[0]
    t = linear(w, "cond_embed.2", silu(linear(w, "cond_embed.0", sinusoid(gamma, base))))
    a = linear(w, "audio_cond_embed.2", silu(linear(w, "audio_cond_embed.0", mel)))

    def run(names: Iterator[str], h: Tensor, resample: str = "") -> Tensor:
        for name in names:
            if f"{name}.qkv.weight" in w:
                h = attention(w, name, h, head)
            elif f"{name}.in_layers.0.weight" in w:
                h = residual_block(w, name, h, t, a, resample)
            else:
                h = conv(w, name, h)
        return h

    def parts(block: str) -> list[str]:
        found = {".".join(name.split(".")[:3]) for name in w if name.startswith(f"{block}.")}
        return sorted(found)

    h, skips = images, []
    blocks = len({name.split(".")[1] for name in w if name.startswith("input_blocks.")})
    for block in range(blocks):
        # The first is a convolution; of the others, two are residual blocks and every third halves the resolution.
        h = run(iter(parts(f"input_blocks.{block}")), h, "down" if block and block % 3 == 0 else "")
        skips.append(h)
    h = run((f"middle_block.{index}" for index in range(3)), h)
    for block in range(blocks):
        first, *others = parts(f"output_blocks.{block}")
        h = run(iter([first]), torch.cat([h, skips.pop()], dim=1))
        h = run(iter(others), h, "up")
    return conv(w, "out.2", silu(norm(w, "out.0", h)))
