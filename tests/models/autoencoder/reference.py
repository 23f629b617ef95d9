"""The released autoencoder written from the specification in plain torch, on weights named and laid out as released: an oracle.

Nothing here comes from diffusers, or from the converter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.models.video_editing.reference import Shapes, Weights, conv, silu


def layout(base: int, multipliers: tuple[int, ...], res_blocks: int, codes: int) -> Shapes:
    """Names and shapes of official_checkpoints §3.2, for latents of three channels."""
    shapes: Shapes = {"quantize.embedding.weight": (codes, 3)}

    def add(name: str, *weight: int) -> None:
        shapes.update({f"{name}.weight": weight, f"{name}.bias": weight[:1]})

    def residual(name: str, into: int, out: int) -> None:
        add(f"{name}.norm1", into)
        add(f"{name}.conv1", out, into, 3, 3)
        add(f"{name}.norm2", out)
        add(f"{name}.conv2", out, out, 3, 3)
        if into != out:
            add(f"{name}.nin_shortcut", out, into, 1, 1)

    def middle(name: str, width: int) -> None:
        residual(f"{name}.block_1", width, width)
        residual(f"{name}.block_2", width, width)
        add(f"{name}.attn_1.norm", width)
        for projection in ("q", "k", "v", "proj_out"):
            add(f"{name}.attn_1.{projection}", width, width, 1, 1)

    widths = [base * multiplier for multiplier in multipliers]
    add("encoder.conv_in", base, 3, 3, 3)
    before = base
    for level, width in enumerate(widths):
        for block in range(res_blocks):
            residual(f"encoder.down.{level}.block.{block}", before, width)
            before = width
        if level < len(widths) - 1:
            add(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    middle("encoder.mid", before)
    add("encoder.norm_out", before)
    add("encoder.conv_out", 3, before, 3, 3)
    add("quant_conv", 3, 3, 1, 1)
    add("post_quant_conv", 3, 3, 1, 1)
    add("decoder.conv_in", before, 3, 3, 3)
    middle("decoder.mid", before)
    for level, width in reversed(list(enumerate(widths))):
        for block in range(res_blocks + 1):
            residual(f"decoder.up.{level}.block.{block}", before, width)
            before = width
        if level:
            add(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    add("decoder.norm_out", before)
    add("decoder.conv_out", 3, before, 3, 3)
    return shapes


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)


def residual_block(w: Weights, name: str, x: Tensor) -> Tensor:
    h = conv(w, f"{name}.conv1", silu(norm(w, f"{name}.norm1", x)))
    h = conv(w, f"{name}.conv2", silu(norm(w, f"{name}.norm2", h)))
    return h + (conv(w, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in w else x)


def middle(w: Weights, name: str, x: Tensor) -> Tensor:
    """Residual block, attention of one head over all positions, residual block."""
    x = residual_block(w, f"{name}.block_1", x)
    z = norm(w, f"{name}.attn_1.norm", x)
    q, k, v = (conv(w, f"{name}.attn_1.{projection}", z).flatten(2) for projection in "qkv")
    weights = torch.einsum("bct,bcs->bts", q, k).mul(q.shape[1] ** -0.5).softmax(dim=-1)
    out = torch.einsum("bts,bcs->bct", weights, v).reshape(x.shape)
    return residual_block(w, f"{name}.block_2", x + conv(w, f"{name}.attn_1.proj_out", out))


def blocks(w: Weights, level: str) -> list[str]:
    return sorted({".".join(name.split(".")[:5]) for name in w if name.startswith(f"{level}.block.")})


def levels(w: Weights) -> range:
    return range(len({name.split(".")[2] for name in w if name.startswith("encoder.down.")}))


def encode(w: Weights, images: Tensor) -> Tensor:
    """Images -> latents before quantisation."""
    h = conv(w, "encoder.conv_in", images)
    for level in levels(w):
        for block in blocks(w, f"encoder.down.{level}"):
            h = residual_block(w, block, h)
        down = f"encoder.down.{level}.downsample.conv"
        if f"{down}.weight" in w:
            h = F.conv2d(F.pad(h, (0, 1, 0, 1)), w[f"{down}.weight"], w[f"{down}.bias"], stride=2)
    h = silu(norm(w, "encoder.norm_out", middle(w, "encoder.mid", h)))
    return conv(w, "quant_conv", conv(w, "encoder.conv_out", h))


def quantise(w: Weights, latents: Tensor) -> Tensor:
    """The nearest code of each latent pixel."""
    codes = w["quantize.embedding.weight"]
    pixels = latents.movedim(1, -1)
    nearest = (pixels[..., None, :] - codes).square().sum(-1).argmin(-1)
    return codes[nearest].movedim(-1, 1)


def decode(w: Weights, latents: Tensor) -> Tensor:
    h = conv(w, "decoder.conv_in", conv(w, "post_quant_conv", quantise(w, latents)))
    h = middle(w, "decoder.mid", h)
    for level in reversed(levels(w)):
        for block in blocks(w, f"decoder.up.{level}"):
            h = residual_block(w, block, h)
        up = f"decoder.up.{level}.upsample.conv"
        if f"{up}.weight" in w:
            h = conv(w, up, h.repeat_interleave(2, -1).repeat_interleave(2, -2))
    return conv(w, "decoder.conv_out", silu(norm(w, "decoder.norm_out", h)))
