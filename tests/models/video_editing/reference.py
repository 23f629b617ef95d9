"""The released U-Net written from the specification in plain torch, block by block, on the weights of ours: an oracle.

Nothing here comes from diffusers but the names of the weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


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


def residual_block(w: Weights, name: str, x: Tensor, t: Tensor, a: Tensor, resample: str = "") -> Tensor:
    h = silu(norm(w, f"{name}.norm1", x))
    if resample == "down":
        h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
    if resample == "up":
        h, x = (z.repeat_interleave(2, -1).repeat_interleave(2, -2) for z in (h, x))
    h = norm(w, f"{name}.norm2", conv(w, f"{name}.conv1", h))
    scale_t, shift_t = linear(w, f"{name}.time_emb_proj.noise_level", silu(t))[:, :, None, None].chunk(2, dim=1)
    scale_a, shift_a = linear(w, f"{name}.time_emb_proj.audio", silu(a))[:, :, None, None].chunk(2, dim=1)
    h = (1 + scale_a) * ((1 + scale_t) * h + shift_t) + shift_a
    h = conv(w, f"{name}.conv2", silu(h))
    return h + (conv(w, f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in w else x)


def attention(w: Weights, name: str, x: Tensor, head: int) -> Tensor:
    """One 1x1 convolution gives for each head in turn its q, k and v, as in the release's weights."""
    B, C, H, W = x.shape
    parts = [torch.cat([w[f"{name}.to_{p}.{kind}"] for p in "qkv"]) for kind in ("weight", "bias")]
    weight, bias = (p.unflatten(0, (3, C // head, head)).transpose(0, 1).flatten(0, 2) for p in parts)
    z = norm(w, f"{name}.group_norm", x).flatten(2)
    qkv = F.conv1d(z, weight[..., None], bias)
    q, k, v = qkv.reshape(B * (C // head), 3 * head, H * W).split(head, dim=1)
    weights = torch.einsum("bct,bcs->bts", q * head**-0.25, k * head**-0.25).softmax(dim=-1)
    out = torch.einsum("bts,bcs->bct", weights, v).reshape(B, C, H * W)
    weight_out, bias_out = w[f"{name}.to_out.0.weight"], w[f"{name}.to_out.0.bias"]
    return x + F.conv1d(out, weight_out[..., None], bias_out).reshape(x.shape)


def u_net(
    w: Weights,
    images: Tensor,
    gamma: Tensor,
    mel: Tensor,
    base: int,
    levels: int,
    blocks: int,
    attends: set[int],
    head: int,
) -> Tensor:
    """`images`: noisy, previous and identity frame in 9 channels."""
    t = sinusoid(gamma, base)
    t = linear(w, "unet.time_embedding.0.linear_2", silu(linear(w, "unet.time_embedding.0.linear_1", t)))
    a = linear(w, "audio_embedding.linear_2", silu(linear(w, "audio_embedding.linear_1", mel)))

    h = conv(w, "unet.conv_in", images)
    skips = [h]
    for level in range(levels):
        for block in range(blocks):
            h = residual_block(w, f"unet.down_blocks.{level}.resnets.{block}", h, t, a)
            if level in attends:
                h = attention(w, f"unet.down_blocks.{level}.attentions.{block}", h, head)
            skips.append(h)
        if level < levels - 1:
            h = residual_block(w, f"unet.down_blocks.{level}.downsamplers.0", h, t, a, "down")
            skips.append(h)
    h = residual_block(w, "unet.mid_block.resnets.0", h, t, a)
    h = attention(w, "unet.mid_block.attentions.0", h, head)
    h = residual_block(w, "unet.mid_block.resnets.1", h, t, a)
    for level in reversed(range(levels)):
        name = f"unet.up_blocks.{levels - 1 - level}"
        for block in range(blocks + 1):
            h = residual_block(w, f"{name}.resnets.{block}", torch.cat([h, skips.pop()], dim=1), t, a)
            if level in attends:
                h = attention(w, f"{name}.attentions.{block}", h, head)
        if level > 0:
            h = residual_block(w, f"{name}.upsamplers.0", h, t, a, "up")
    assert not skips
    return conv(w, "unet.conv_out", silu(norm(w, "unet.conv_norm_out", h)))
