"""The release's heads once more, written out plainly from the specification: layouts, and what a field says of one point."""

from math import ceil

import numpy as np
import torch
import torch.nn.functional as F


def encoder_layout(encoder, attention):
    layout = {}
    for index, (after, before) in zip((0, 2, 4, 6), ((32, 204), (32, 32), (64, 32), (64, 64)), strict=True):
        layout |= {f"{encoder}.encoder_conv.{index}.weight": (after, before, 3), f"{encoder}.encoder_conv.{index}.bias": (after,)}
    for index in (0, 2):
        layout |= {f"{encoder}.encoder_fc1.{index}.weight": (64, 64), f"{encoder}.encoder_fc1.{index}.bias": (64,)}
    for index, (after, before) in zip((0, 2, 4, 6, 8), ((16, 64), (8, 16), (4, 8), (2, 4), (1, 2)), strict=True):
        layout |= {
            f"{attention}.attentionConvNet.{index}.weight": (after, before, 3),
            f"{attention}.attentionConvNet.{index}.bias": (after,),
        }
    return layout | {f"{attention}.attentionNet.0.weight": (5, 5), f"{attention}.attentionNet.0.bias": (5,)}


def mlp_layout(hidden=256):
    layout, color = encoder_layout("lm_encoder", "lmatt_encoder"), hidden // 2
    for model in ("model_coarse", "model_fine"):
        shapes = {f"density_linears.{index}": (hidden, hidden) for index in range(8)}
        shapes |= {"density_linears.0": (hidden, 127), "density_linears.5": (hidden, 127 + hidden)}
        shapes |= {"density_out_linear": (1, hidden), "color_linears.0": (color, hidden + 27), "color_linears.1": (color, color)}
        shapes |= {"color_linears.2": (color, color), "color_out_linear": (3, color)}
        for name, shape in shapes.items():
            layout |= {f"{model}.{name}.weight": shape, f"{model}.{name}.bias": shape[:1]}
    return layout


def resolutions(levels, finest):
    growth = (finest / 16) ** (1 / (levels - 1))
    return [ceil(round(16 * growth**level - 1, 6)) + 1 for level in range(levels)]


def rows(dimensions, levels, finest, log2_rows):
    return [min(2**log2_rows, ceil((side + 1) ** dimensions / 8) * 8) for side in resolutions(levels, finest)]


def grid_layout(levels=16, finest=2048, log2_rows=16, hidden=128, codes=13_000, cells=128):
    layout = encoder_layout("cond_prenet", "cond_att_net") | {"individual_embeddings": (codes, 4)}
    layout |= {"aabb_train": (6,), "aabb_infer": (6,), "step_counter": (16, 2)}
    layout |= {"density_grid": (1, cells**3), "density_bitfield": (cells**3 // 8,)}
    for name, dimensions in (("position", 3), ("ambient", 2)):
        layout[f"{name}_embedder.embeddings"] = (sum(rows(dimensions, levels, finest, log2_rows)), 2)
        layout[f"{name}_embedder.offsets"] = (levels + 1,)
    nets = {
        "ambient_net": (2 * levels + 64, hidden, hidden, 2),
        "sigma_net": (4 * levels, hidden, hidden, 1 + hidden),
        "color_net": (16 + hidden + 4, hidden, 3),
    }
    for name, widths in nets.items():
        for index in range(len(widths) - 1):
            layout[f"{name}.net.{index}.weight"] = (widths[index + 1], widths[index])
    return layout


def code(weights, encoder, attention, motion_FX):
    """(64,) of five frames of normalised motion."""
    codes = []
    for frame in motion_FX:
        hidden = frame[None, :, None]
        for index in (0, 2, 4, 6):
            layer = f"{encoder}.encoder_conv.{index}"
            hidden = F.leaky_relu(F.conv1d(hidden, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1), 0.02)
        hidden = hidden.flatten()
        for index in (0, 2):
            hidden = F.linear(
                hidden, weights[f"{encoder}.encoder_fc1.{index}.weight"], weights[f"{encoder}.encoder_fc1.{index}.bias"]
            )
            hidden = F.leaky_relu(hidden, 0.02) if index == 0 else hidden
        codes.append(hidden)
    hidden = torch.stack(codes, 1)[None]
    for index in (0, 2, 4, 6, 8):
        layer = f"{attention}.attentionConvNet.{index}"
        hidden = F.leaky_relu(F.conv1d(hidden, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1), 0.02)
    share = F.linear(hidden.flatten(), weights[f"{attention}.attentionNet.0.weight"], weights[f"{attention}.attentionNet.0.bias"])
    return torch.stack(codes, 1) @ share.softmax(0)


def frequencies(x, octaves):
    parts = [x]
    for octave in range(octaves):
        parts += [(2.0**octave * x).sin(), (2.0**octave * x).cos()]
    return torch.cat(parts)


def mlp_point(weights, model, point_3, direction_3, code_64):
    """Colour (3,) and density of a point of the head frame, metres."""
    given = torch.cat([frequencies(point_3, 10), code_64])

    def layer(name, x):
        return F.linear(x, weights[f"{model}.{name}.weight"], weights[f"{model}.{name}.bias"])

    hidden = given
    for index in range(8):
        hidden = layer(f"density_linears.{index}", torch.cat([given, hidden]) if index == 5 else hidden).relu()
    color = torch.cat([hidden, frequencies(direction_3, 4)])
    for index in range(3):
        color = layer(f"color_linears.{index}", color).relu()
    return layer("color_out_linear", color).sigmoid(), layer("density_out_linear", hidden).relu()


def features(table, x_D, levels, finest, log2_rows):
    """Of one point in [0, 1]: corner by corner."""
    found, first = [], 0
    growth = (finest / 16) ** (1 / (levels - 1))
    for level, (side, count) in enumerate(
        zip(resolutions(levels, finest), rows(len(x_D), levels, finest, log2_rows), strict=True)
    ):
        scale = float(np.float32(16 * growth**level - 1))  # as the release has it
        place = x_D * scale + 0.5
        corner, rest, total = place.floor(), place - place.floor(), torch.zeros(2, dtype=table.dtype)
        for bits in np.ndindex(*[2] * len(x_D)):
            share, row, stride = 1.0, 0, 1
            for axis, bit in enumerate(bits):
                share = share * (rest[axis] if bit else 1 - rest[axis])
                if stride <= count:  # the release's loop ends where a step would pass over the whole table
                    row += (int(corner[axis]) + bit) * stride
                    stride *= side + 1
            total = total + share * table[first + row % count]
        found.append(total)
        first += count
    return torch.cat(found)


def net(weights, name, layers, x):
    for index in range(layers):
        x = F.linear(x, weights[f"{name}.net.{index}.weight"])
        x = x.relu() if index < layers - 1 else x
    return x


def grid_point(weights, point_3, code_64, levels, finest, log2_rows):
    """Density, what the colour goes by, and the ambient coordinates of a point of the field, in [-1, 1]³."""
    position = features(weights["position_embedder.embeddings"], (point_3 + 1) / 2, levels, finest, log2_rows)
    ambient = net(weights, "ambient_net", 3, torch.cat([position, code_64])).tanh()
    around = features(weights["ambient_embedder.embeddings"], (ambient + 1) / 2, levels, finest, log2_rows)
    output = net(weights, "sigma_net", 3, torch.cat([position, around]))
    return output[0].exp(), output[1:], ambient
