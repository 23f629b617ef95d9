"""The released networks written from the specification in plain torch, on weights named and laid out as released: an oracle.

Nothing here comes from diffusers, or from the converter. The attention to the one token is written out: queries, keys, softmax.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.models.video_editing.reference import Shapes, Weights, conv, linear, norm, silu, sinusoid

UNET = "model.diffusion_model."
AUDIO, SMOOTH, LANDMARKS = "cond_stage_model_for_audio", "cond_stage_model_for_audio_smooth", "cond_stage_model_for_ldm"
SLOPE = 0.02


def unet_layout(base: int, multipliers: tuple[int, ...], attends: set[int]) -> Shapes:
    """Names and shapes of official_checkpoints §3.1: two residual blocks a level, attention at these levels and in the middle."""
    shapes: Shapes = {}
    embedding = 4 * base

    def add(name: str, *weight: int, bias: bool = True) -> None:
        shapes[f"{UNET}{name}.weight"] = weight
        if bias:
            shapes[f"{UNET}{name}.bias"] = weight[:1]

    def residual(name: str, into: int, out: int) -> None:
        add(f"{name}.in_layers.0", into)
        add(f"{name}.in_layers.2", out, into, 3, 3)
        add(f"{name}.emb_layers.1", out, embedding)
        add(f"{name}.out_layers.0", out)
        add(f"{name}.out_layers.3", out, out, 3, 3)
        if into != out:
            add(f"{name}.skip_connection", out, into, 1, 1)

    def transformer(name: str, width: int) -> None:
        add(f"{name}.norm", width)
        add(f"{name}.proj_in", width, width, 1, 1)
        block = f"{name}.transformer_blocks.0"
        for attention, context in (("attn1", width), ("attn2", 128)):
            add(f"{block}.{attention}.to_q", width, width, bias=False)
            add(f"{block}.{attention}.to_k", width, context, bias=False)
            add(f"{block}.{attention}.to_v", width, context, bias=False)
            add(f"{block}.{attention}.to_out.0", width, width)
        add(f"{block}.ff.net.0.proj", 8 * width, width)
        add(f"{block}.ff.net.2", width, 4 * width)
        for index in (1, 2, 3):
            add(f"{block}.norm{index}", width)
        add(f"{name}.proj_out", width, width, 1, 1)

    add("time_embed.0", embedding, base)
    add("time_embed.2", embedding, embedding)
    add("input_blocks.0.0", base, 9, 3, 3)
    widths = [base]
    for level, multiplier in enumerate(multipliers):
        for _ in range(2):
            residual(f"input_blocks.{len(widths)}.0", widths[-1], base * multiplier)
            if level in attends:
                transformer(f"input_blocks.{len(widths)}.1", base * multiplier)
            widths.append(base * multiplier)
        if level < len(multipliers) - 1:
            add(f"input_blocks.{len(widths)}.0.op", widths[-1], widths[-1], 3, 3)
            widths.append(widths[-1])
    width, block = widths[-1], 0
    residual("middle_block.0", width, width)
    transformer("middle_block.1", width)
    residual("middle_block.2", width, width)
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for index in range(3):
            residual(f"output_blocks.{block}.0", width + widths.pop(), base * multiplier)
            width = base * multiplier
            if level in attends:
                transformer(f"output_blocks.{block}.1", width)
            if index == 2 and level > 0:
                add(f"output_blocks.{block}.{1 + (level in attends)}.conv", width, width, 3, 3)
            block += 1
    add("out.0", base)
    add("out.2", 3, base, 3, 3)
    return shapes


def condition_layout() -> Shapes:
    """Names and shapes of official_checkpoints §3.3."""
    weights = {
        f"{AUDIO}.encoder_conv.0": (32, 29, 3),
        f"{AUDIO}.encoder_conv.2": (32, 32, 3),
        f"{AUDIO}.encoder_conv.4": (64, 32, 3),
        f"{AUDIO}.encoder_conv.6": (64, 64, 3),
        f"{AUDIO}.encoder_fc1.0": (64, 64),
        f"{AUDIO}.encoder_fc1.2": (64, 64),
        f"{SMOOTH}.attentionConvNet.0": (16, 32, 3),
        f"{SMOOTH}.attentionConvNet.2": (8, 16, 3),
        f"{SMOOTH}.attentionConvNet.4": (4, 8, 3),
        f"{SMOOTH}.attentionConvNet.6": (2, 4, 3),
        f"{SMOOTH}.attentionConvNet.8": (1, 2, 3),
        f"{SMOOTH}.attentionNet.0": (8, 8),
        f"{LANDMARKS}.encoder_fc1.0": (128, 78),
        f"{LANDMARKS}.encoder_fc1.2": (64, 128),
        f"{LANDMARKS}.encoder_fc1.4": (64, 64),
    }
    shapes: Shapes = {}
    for name, weight in weights.items():
        shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
    return shapes


def averaged(name: str) -> str:
    """Of the averaged copy of a tensor of the U-Net."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, SLOPE * x)


def condition(w: Weights, windows: Tensor, points: Tensor) -> Tensor:
    """Windows (B, 8, 16, 29) and landmarks (B, 39, 2) -> the token (B, 128), one example after another."""
    tokens = []
    for windows_8RD, points_P2 in zip(windows, points, strict=True):
        h = windows_8RD.transpose(1, 2)
        for index in (0, 2, 4, 6):
            name = f"{AUDIO}.encoder_conv.{index}"
            h = leaky(F.conv1d(h, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=1))
        codes = linear(w, f"{AUDIO}.encoder_fc1.2", leaky(linear(w, f"{AUDIO}.encoder_fc1.0", h[..., 0])))
        h = codes[:, :32].T[None]
        for index in (0, 2, 4, 6, 8):
            name = f"{SMOOTH}.attentionConvNet.{index}"
            h = leaky(F.conv1d(h, w[f"{name}.weight"], w[f"{name}.bias"], padding=1))
        weights = linear(w, f"{SMOOTH}.attentionNet.0", h.reshape(1, 8)).softmax(dim=1).reshape(8, 1)
        audio = (weights * codes).sum(0)
        h = leaky(linear(w, f"{LANDMARKS}.encoder_fc1.0", points_P2.reshape(78)))
        h = leaky(linear(w, f"{LANDMARKS}.encoder_fc1.2", h))
        tokens.append(torch.cat([audio, linear(w, f"{LANDMARKS}.encoder_fc1.4", h)]))
    return torch.stack(tokens)


def residual_block(w: Weights, name: str, x: Tensor, t: Tensor) -> Tensor:
    h = conv(w, f"{name}.in_layers.2", silu(norm(w, f"{name}.in_layers.0", x)))
    h = h + linear(w, f"{name}.emb_layers.1", silu(t))[:, :, None, None]
    h = conv(w, f"{name}.out_layers.3", silu(norm(w, f"{name}.out_layers.0", h)))
    return h + (conv(w, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in w else x)


def attention(w: Weights, name: str, x: Tensor, context: Tensor, head: int) -> Tensor:
    """Queries (B, N, C) to a context (B, M, ·); the channels of a head are neighbours."""
    q, k, v = (
        (source @ w[f"{name}.to_{part}.weight"].T).unflatten(-1, (-1, head)).transpose(1, 2)
        for part, source in (("q", x), ("k", context), ("v", context))
    )
    weights = (q @ k.transpose(-1, -2) * head**-0.5).softmax(dim=-1)
    return linear(w, f"{name}.to_out.0", (weights @ v).transpose(1, 2).flatten(2))


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def transformer(w: Weights, name: str, x: Tensor, token: Tensor, head: int) -> Tensor:
    h = F.group_norm(x, 32, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"], eps=1e-6)
    h = conv(w, f"{name}.proj_in", h).flatten(2).transpose(1, 2)
    block = f"{name}.transformer_blocks.0"
    z = layer_norm(w, f"{block}.norm1", h)
    h = h + attention(w, f"{block}.attn1", z, z, head)
    h = h + attention(w, f"{block}.attn2", layer_norm(w, f"{block}.norm2", h), token[:, None], head)
    value, gate = linear(w, f"{block}.ff.net.0.proj", layer_norm(w, f"{block}.norm3", h)).chunk(2, dim=-1)
    h = h + linear(w, f"{block}.ff.net.2", value * F.gelu(gate))
    return x + conv(w, f"{name}.proj_out", h.transpose(1, 2).reshape(x.shape))


def u_net(weights: Weights, latents: Tensor, step: Tensor, token: Tensor, head: int) -> Tensor:
    """`latents`: noisy, masked and reference in 9 channels. The weights themselves tell what follows what."""
    w = {name.removeprefix(UNET): tensor for name, tensor in weights.items()}
    base = w["out.0.weight"].shape[0]
    frequencies = sinusoid(step.to(latents.dtype), base).to(latents.dtype)
    t = linear(w, "time_embed.2", silu(linear(w, "time_embed.0", frequencies)))

    def run(block: str, h: Tensor) -> Tensor:
        for index in sorted({name.split(".")[len(block.split("."))] for name in w if name.startswith(f"{block}.")}):
            name = f"{block}.{index}"
            if f"{name}.transformer_blocks.0.norm1.weight" in w:
                h = transformer(w, name, h, token, head)
            elif f"{name}.in_layers.0.weight" in w:
                h = residual_block(w, name, h, t)
            elif f"{name}.op.weight" in w:
                h = F.conv2d(h, w[f"{name}.op.weight"], w[f"{name}.op.bias"], stride=2, padding=1)
            elif f"{name}.conv.weight" in w:
                h = conv(w, f"{name}.conv", h.repeat_interleave(2, -1).repeat_interleave(2, -2))
            else:
                h = conv(w, name, h)
        return h

    h, skips = latents, []
    blocks = len({name.split(".")[1] for name in w if name.startswith("input_blocks.")})
    for block in range(blocks):
        h = run(f"input_blocks.{block}", h)
        skips.append(h)
    h = run("middle_block", h)
    for block in range(blocks):
        h = run(f"output_blocks.{block}", torch.cat([h, skips.pop()], dim=1))
    return conv(w, "out.2", silu(norm(w, "out.0", h)))
