"""The release's network as the specification tells it (official_checkpoints §4.1, geneface §1.3), plainly, by its own names."""

import torch
import torch.nn.functional as F


def layout(width=1024, g=64, z=16, h=256, kernel=5, encoder=8, decoder=4, flow_h=64, flow_kernel=3, flow=4, flows=4):
    """Names and shapes of every tensor of the plain variant."""
    shapes = {"mel_encoder.0.weight": (g, width, 3), "mel_encoder.3.weight": (g, g, 3)}
    shapes |= {f"mel_encoder.1.{name}": (g,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes["mel_encoder.1.num_batches_tracked"] = ()

    def conv(name, o, i, k):
        shapes.update({f"{name}.weight": (o, i, k), f"{name}.bias": (o,)})

    def wn1(name, o, i, k):
        shapes.update({f"{name}.bias": (o,), f"{name}.weight_g": (o, 1, 1), f"{name}.weight_v": (o, i, k)})

    def wn(name, h, k, layers):
        wn1(f"{name}.cond_layer", 2 * h * layers, g, 1)
        for layer in range(layers):
            wn1(f"{name}.in_layers.{layer}", 2 * h, h, k)
            wn1(f"{name}.res_skip_layers.{layer}", h if layer == layers - 1 else 2 * h, h, 1)

    conv("vae.g_pre_net.0", g, g, 8)
    conv("vae.encoder.pre_net.0", h, 204, 8)
    wn("vae.encoder.wn", h, kernel, encoder)
    conv("vae.encoder.out_proj", 2 * z, h, 1)
    for index in range(0, 2 * flows, 2):
        conv(f"vae.prior_flow.flows.{index}.pre", flow_h, z // 2, 1)
        wn(f"vae.prior_flow.flows.{index}.enc", flow_h, flow_kernel, flow)
        conv(f"vae.prior_flow.flows.{index}.post", z // 2, flow_h, 1)
    shapes |= {"vae.decoder.pre_net.0.weight": (z, h, 4), "vae.decoder.pre_net.0.bias": (h,)}
    wn("vae.decoder.wn", h, kernel, decoder)
    conv("vae.decoder.out_proj", 204, h, 1)
    return shapes


def conv(w, name, x, **how):
    return F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], **how)


def wn1(w, name, x, padding=0):
    g, v = w[f"{name}.weight_g"], w[f"{name}.weight_v"]
    return F.conv1d(x, g * v / v.square().sum((1, 2), keepdim=True).sqrt(), w[f"{name}.bias"], padding=padding)


def wn(w, name, x, condition, mask):
    h, layers = x.shape[1], sum(key.startswith(f"{name}.in_layers.") for key in w) // 3
    told, output = wn1(w, f"{name}.cond_layer", condition), 0
    for layer in range(layers):
        k = w[f"{name}.in_layers.{layer}.weight_v"].shape[2]
        a = wn1(w, f"{name}.in_layers.{layer}", x, k // 2) + told[:, 2 * h * layer : 2 * h * (layer + 1)]
        gated = wn1(w, f"{name}.res_skip_layers.{layer}", torch.tanh(a[:, :h]) * torch.sigmoid(a[:, h:]))
        if layer < layers - 1:
            x = (x + gated[:, :h]) * mask
            gated = gated[:, h:]
        output = output + gated
    return output * mask


def condition(w, speech_BSD):
    """At 25 Hz and at 6.25 Hz, (B, G, T) and (B, G, T/4)."""
    x = F.interpolate(speech_BSD.transpose(1, 2), scale_factor=0.5, mode="nearest")
    x = F.conv1d(x, w["mel_encoder.0.weight"], padding=1)
    moments = (w["mel_encoder.1.running_mean"], w["mel_encoder.1.running_var"])
    x = F.gelu(F.batch_norm(x, *moments, w["mel_encoder.1.weight"], w["mel_encoder.1.bias"]))
    fine = F.conv1d(x, w["mel_encoder.3.weight"], padding=1)
    return fine, conv(w, "vae.g_pre_net.0", fine, stride=4, padding=2)


def encode(w, motion_BTX, coarse, mask_BT):
    """Mean and log sigma."""
    mask = mask_BT[:, None, ::4]
    x = conv(w, "vae.encoder.pre_net.0", motion_BTX.transpose(1, 2), stride=4, padding=2) * mask
    x = conv(w, "vae.encoder.out_proj", wn(w, "vae.encoder.wn", x, coarse, mask))
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]


def flow(w, z, coarse):
    half = z.shape[1] // 2
    for index in range(0, 2 * sum(key.endswith(".pre.bias") for key in w), 2):
        name = f"vae.prior_flow.flows.{index}"
        h = wn(w, f"{name}.enc", conv(w, f"{name}.pre", z[:, :half]), coarse, 1)
        z = torch.cat((z[:, :half], z[:, half:] + conv(w, f"{name}.post", h)), dim=1).flip(1)
    return z


def decode(w, z, fine, mask_BT):
    """(B, T, 204)."""
    mask = mask_BT[:, None]
    x = F.conv_transpose1d(z, w["vae.decoder.pre_net.0.weight"], w["vae.decoder.pre_net.0.bias"], stride=4) * mask
    x = conv(w, "vae.decoder.out_proj", wn(w, "vae.decoder.wn", x, fine, mask)) * mask
    return x.transpose(1, 2)
