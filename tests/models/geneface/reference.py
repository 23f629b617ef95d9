"""The release's torsos once more, written out plainly from the specification: layouts, and what one pixel is painted."""

import torch
import torch.nn.functional as F

from tests.models.head.reference import features, frequencies, net, rows

SIZES = {"levels": 16, "finest": 2048, "log2_rows": 16}


def grid_layout(levels=16, finest=2048, log2_rows=16, codes=13_000, cells=128, aware=False):
    """official_checkpoints.md §4.8."""
    known = 42 + 54 + 8 + 16 * aware
    layout = {
        "torso_individual_codes": (codes, 8),
        "density_grid_torso": (cells**2,),
        "torso_embedder.embeddings": (sum(rows(2, levels, finest, log2_rows)), 2),
        "torso_embedder.offsets": (levels + 1,),
    }
    nets = {"torso_deform_net": (known, 64, 64, 2), "torso_canonicial_net": (2 * levels + known, 32, 32, 4)}
    for name, widths in nets.items():
        for index in range(3):
            layout[f"{name}.net.{index}.weight"] = (widths[index + 1], widths[index])
    return layout | (linear_layout("head_color_weights_encoder", 4) if aware else {})


def linear_layout(name, width):
    layout = {}
    for index, (after, before) in zip((0, 2, 4), ((16, width), (32, 16), (16, 32)), strict=True):
        layout |= {f"{name}.{index}.weight": (after, before), f"{name}.{index}.bias": (after,)}
    return layout


def mlp_layout():
    """official_checkpoints.md §4.6."""
    layout = linear_layout("color_encoder", 3)
    for index, (after, before) in zip((0, 2, 4, 6), ((32, 29), (32, 32), (64, 32), (64, 64)), strict=True):
        layout |= {f"aud_net.encoder_conv.{index}.weight": (after, before, 3), f"aud_net.encoder_conv.{index}.bias": (after,)}
    for index in (0, 2):
        layout |= {f"aud_net.encoder_fc1.{index}.weight": (64, 64), f"aud_net.encoder_fc1.{index}.bias": (64,)}
    for index, (after, before) in zip((0, 2, 4, 6, 8), ((16, 64), (8, 16), (4, 8), (2, 4), (1, 2)), strict=True):
        name = f"audatt_net.attentionConvNet.{index}"
        layout |= {f"{name}.weight": (after, before, 3), f"{name}.bias": (after,)}
    layout |= {"audatt_net.attentionNet.0.weight": (8, 8), "audatt_net.attentionNet.0.bias": (8,)}
    for model in ("model_coarse", "model_fine"):
        shapes = {f"density_linears.{index}": (256, 256) for index in range(8)}
        shapes |= {"density_linears.0": (256, 221), "density_linears.5": (256, 221 + 256), "density_out_linear": (1, 256)}
        shapes |= {"color_linears.0": (128, 283), "color_linears.1": (128, 128), "color_linears.2": (128, 128)}
        for name, shape in (shapes | {"color_out_linear": (3, 128)}).items():
            layout |= {f"{model}.{name}.weight": shape, f"{model}.{name}.bias": shape[:1]}
    return layout


def encoded(weights, name, values):
    for index in (0, 2, 4):
        values = F.linear(values, weights[f"{name}.{index}.weight"], weights[f"{name}.{index}.bias"])
        values = F.leaky_relu(values, 0.02) if index < 4 else values
    return values


def grid_pixel(weights, place_2, pose_6, frame, head_4, sizes):
    """Opacity and colour. place: down and right, [-1, 1]. head: colour times opacity, opacity; None: not seen."""
    place = 0.8 * place_2
    known = torch.cat([frequencies(place, 10), frequencies(pose_6, 4), weights["torso_individual_codes"][frame]])
    if head_4 is not None:
        known = torch.cat([known, encoded(weights, "head_color_weights_encoder", head_4)])
    moved = (place + net(weights, "torso_deform_net", 3, known)).clamp(-1, 1)
    table = features(weights["torso_embedder.embeddings"], (moved + 1) / 2, sizes["levels"], sizes["finest"], sizes["log2_rows"])
    painted = net(weights, "torso_canonicial_net", 3, torch.cat([table, known])).sigmoid()
    return painted[0], painted[1:]


def sound_code(weights, windows_8RD):
    """(64,) of eight windows of 16 rows."""
    codes = []
    for window in windows_8RD:
        hidden = window.T[None]
        for index in (0, 2, 4, 6):
            name = f"aud_net.encoder_conv.{index}"
            hidden = F.leaky_relu(F.conv1d(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1), 0.02)
        hidden = hidden.flatten()
        for index in (0, 2):
            hidden = F.linear(
                hidden, weights[f"aud_net.encoder_fc1.{index}.weight"], weights[f"aud_net.encoder_fc1.{index}.bias"]
            )
            hidden = F.leaky_relu(hidden, 0.02) if index == 0 else hidden
        codes.append(hidden)
    hidden = torch.stack(codes, 1)[None]
    for index in (0, 2, 4, 6, 8):
        name = f"audatt_net.attentionConvNet.{index}"
        hidden = F.leaky_relu(F.conv1d(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1), 0.02)
    share = F.linear(hidden.flatten(), weights["audatt_net.attentionNet.0.weight"], weights["audatt_net.attentionNet.0.bias"])
    return torch.stack(codes, 1) @ share.softmax(0)


def mlp_condition(weights, windows_8RD, euler_3, place_3, behind_3):
    """(158,), of a pixel before whose head, over the background, is a colour."""
    pose = [frequencies(euler_3, 6), frequencies(place_3, 6)]
    return torch.cat([sound_code(weights, windows_8RD), *pose, encoded(weights, "color_encoder", behind_3)])


def mlp_pixel(weights, origin_3, direction_3, condition_158, behind_3, near, far, coarse_samples, fine_samples):
    """The picture's colour along a ray whose direction has a depth of 1, as geneface.md §3.1 tells it; sampled evenly."""

    def look(model, depths):
        colors, densities = [], []
        for depth in depths:
            density, color = field(
                weights, model, origin_3 + depth * direction_3, direction_3 / direction_3.norm(), condition_158
            )
            colors.append(color), densities.append(density)
        lengths = torch.cat([depths.diff(), torch.tensor([1e10], dtype=depths.dtype)]) * direction_3.norm()
        alpha = 1 - torch.exp(-(torch.stack(densities) + 1e-6) * lengths)
        light = torch.cat([torch.ones(1, dtype=depths.dtype), (1 - alpha).cumprod(0)[:-1]])
        weight = alpha * light
        return (weight[:, None] * torch.stack([*colors[:-1], behind_3])).sum(0), weight

    depths = torch.linspace(near, far, coarse_samples, dtype=torch.double)
    _, weight = look("model_coarse", depths)
    edges, inner = (depths[1:] + depths[:-1]) / 2, weight[1:-1] + 1e-5
    cumulated = torch.cat([torch.zeros(1, dtype=torch.double), (inner / inner.sum()).cumsum(0)])
    more = []
    for quantile in torch.linspace(0, 1, fine_samples, dtype=torch.double):
        above = min(int((cumulated <= quantile).sum()), len(cumulated) - 1)
        below = max(above - 1, 0)
        span = cumulated[above] - cumulated[below]
        share = (quantile - cumulated[below]) / (span if span >= 1e-5 else 1.0)
        more.append(edges[below] + share.clamp(0, 1) * (edges[above] - edges[below]))
    return look("model_fine", torch.cat([depths, torch.stack(more)]).sort().values)[0]


def field(weights, model, point_3, direction_3, condition):
    """Density and colour."""
    given = torch.cat([frequencies(point_3, 10), condition])

    def layer(name, x):
        return F.linear(x, weights[f"{model}.{name}.weight"], weights[f"{model}.{name}.bias"])

    hidden = given
    for index in range(8):
        hidden = layer(f"density_linears.{index}", torch.cat([given, hidden]) if index == 5 else hidden).relu()
    color = torch.cat([hidden, frequencies(direction_3, 4)])
    for index in range(3):
        color = layer(f"color_linears.{index}", color).relu()
    return layer("density_out_linear", hidden).relu()[0], layer("color_out_linear", color).sigmoid()
