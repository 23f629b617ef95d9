"""The flow-VAE: motion and sound to latents, and latents and sound to motion.

B  batch     T  frames, 25 a second, a multiple of 4     t = T/4  latents     S = 2T  rows of sound     D  numbers of a row
X  204 numbers of a frame     G  condition channels     Z  latent channels     H  channels of a WaveNet     Y = Z/2

In mask_BT what is not padding is 1. Motion is centimetres, as models/landmarks.py has it, and not normalised (release).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from models.landmarks import VALUES
from models.motion.config import Config

STRIDE = 4  # frames of a latent


class GatedStack(nn.Module):
    """WaveNet's residual layers (arXiv 1609.03499, §2.3 to 2.5), not causal; what is heard is told to each layer."""

    def __init__(self, channels: int, kernel: int, layers: int, condition_channels: int, dilation_rate: int):
        super().__init__()
        self.condition = weight_norm(nn.Conv1d(condition_channels, 2 * channels * layers, 1))
        self.gates, self.outs = nn.ModuleList(), nn.ModuleList()
        for layer in range(layers):
            dilation = dilation_rate**layer
            padding = dilation * (kernel // 2)
            self.gates.append(weight_norm(nn.Conv1d(channels, 2 * channels, kernel, padding=padding, dilation=dilation)))
            # Residual and skip; the last layer's residual would go nowhere.
            outs = 2 * channels if layer < layers - 1 else channels
            self.outs.append(weight_norm(nn.Conv1d(channels, outs, 1)))

    def forward(self, x_BHT: Tensor, heard_BGT: Tensor, mask_B1T: Tensor) -> Tensor:
        """(B, H, T), the sum of all layers' skips."""
        told = self.condition(heard_BGT).chunk(len(self.gates), dim=1)
        skips_BHT = torch.zeros_like(x_BHT)
        for gate, out, told_BNT in zip(self.gates, self.outs, told, strict=True):
            value_BHT, gate_BHT = (gate(x_BHT) + told_BNT).chunk(2, dim=1)
            *residual, skip_BHT = out(value_BHT.tanh() * gate_BHT.sigmoid()).split(x_BHT.shape[1], dim=1)
            skips_BHT = skips_BHT + skip_BHT
            if residual:
                x_BHT = (x_BHT + residual[0]) * mask_B1T
        return skips_BHT * mask_B1T


class Encoder(nn.Module):
    """q(z | x, c)."""

    def __init__(self, config: Config):
        super().__init__()
        channels, layers, heard = config.channels, config.encoder_layers, config.condition_channels
        self.down = nn.Conv1d(VALUES, channels, 2 * STRIDE, STRIDE, STRIDE // 2)
        self.stack = GatedStack(channels, config.kernel, layers, heard, config.dilation_rate)
        self.out = nn.Conv1d(channels, 2 * config.latent_channels, 1)

    def forward(self, motion_BTX: Tensor, heard_BGt: Tensor, mask_B1t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of the latents, each (B, Z, t)."""
        x_BHt = self.down(motion_BTX.movedim(1, 2)) * mask_B1t
        mean_BZt, log_std_BZt = self.out(self.stack(x_BHt, heard_BGt, mask_B1t)).chunk(2, dim=1)
        return mean_BZt, log_std_BZt


class Decoder(nn.Module):
    """p(x | z, c)."""

    def __init__(self, config: Config):
        super().__init__()
        channels, layers, heard = config.channels, config.decoder_layers, config.condition_channels
        self.up = nn.ConvTranspose1d(config.latent_channels, channels, STRIDE, STRIDE)
        self.stack = GatedStack(channels, config.kernel, layers, heard, config.dilation_rate)
        self.out = nn.Conv1d(channels, VALUES, 1)

    def forward(self, z_BZt: Tensor, heard_BGT: Tensor, mask_B1T: Tensor) -> Tensor:
        """Motion (B, T, X), 0 where it is masked."""
        x_BHT = self.up(z_BZt) * mask_B1T
        motion_BXT = self.out(self.stack(x_BHT, heard_BGT, mask_B1T)) * mask_B1T
        return motion_BXT.movedim(1, 2)


class Coupling(nn.Module):
    """Half of the channels moved by what the other half and the sound say, and the order of the channels reversed.

    Volumes stay as they are: the logarithm of the determinant is 0.
    """

    def __init__(self, config: Config):
        super().__init__()
        half, channels = config.latent_channels // 2, config.flow_channels
        self.inward = nn.Conv1d(half, channels, 1)
        self.stack = GatedStack(channels, config.flow_kernel, config.flow_layers, config.condition_channels, config.dilation_rate)
        self.outward = nn.Conv1d(channels, half, 1)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)  # type: ignore[arg-type]  # Conv1d has one

    def _shift(self, kept_BYt: Tensor, heard_BGt: Tensor, mask_B1t: Tensor) -> Tensor:
        return self.outward(self.stack(self.inward(kept_BYt) * mask_B1t, heard_BGt, mask_B1t)) * mask_B1t

    def forward(self, z_BZt: Tensor, heard_BGt: Tensor, mask_B1t: Tensor) -> Tensor:
        kept_BYt, moved_BYt = z_BZt.chunk(2, dim=1)
        return torch.cat((kept_BYt, moved_BYt + self._shift(kept_BYt, heard_BGt, mask_B1t)), dim=1).flip(1)

    def inverse(self, z_BZt: Tensor, heard_BGt: Tensor, mask_B1t: Tensor) -> Tensor:
        kept_BYt, moved_BYt = z_BZt.flip(1).chunk(2, dim=1)
        return torch.cat((kept_BYt, moved_BYt - self._shift(kept_BYt, heard_BGt, mask_B1t)), dim=1)


class Flow(nn.Module):
    """Latents to normal noise and back; at first the identity, as no half is moved yet and an even number of flips is none."""

    def __init__(self, config: Config):
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(config) for _ in range(config.flow_steps))

    def forward(self, z_BZt: Tensor, heard_BGt: Tensor, mask_B1t: Tensor) -> Tensor:
        for coupling in self.couplings:
            z_BZt = coupling(z_BZt, heard_BGt, mask_B1t)
        return z_BZt

    def inverse(self, noise_BZt: Tensor, heard_BGt: Tensor, mask_B1t: Tensor) -> Tensor:
        for coupling in reversed(self.couplings):
            noise_BZt = coupling.inverse(noise_BZt, heard_BGt, mask_B1t)  # type: ignore[operator]  # a Coupling
        return noise_BZt


class Heard(NamedTuple):
    """The sound, as the network is told it."""

    frames: Tensor  # (B, G, T), the decoder
    latents: Tensor | None  # (B, G, t), encoder and flow; a regressor has neither


class Made(NamedTuple):
    """What training knows of a batch."""

    motion: Tensor  # (B, T, X), decoded
    mean: Tensor  # (B, Z, t), of the latents
    log_std: Tensor  # (B, Z, t), of the latents, of their standard deviation
    z: Tensor  # (B, Z, t), drawn from the two
    noise: Tensor  # (B, Z, t), where the prior has them: z itself without a flow


class MotionVAE(nn.Module):
    """Without `config.prior`'s flow the prior is normal noise; without any prior there is no encoder, and z = 0."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        heard = config.condition_channels
        self.ear = nn.Sequential(
            nn.Conv1d(config.audio_width, heard, 3, padding=1, bias=False),
            nn.BatchNorm1d(heard),
            nn.GELU(),
            nn.Conv1d(heard, heard, 3, padding=1, bias=False),
        )
        draws = config.prior != "none"
        self.squeeze = nn.Conv1d(heard, heard, 2 * STRIDE, STRIDE, STRIDE // 2) if draws else None
        self.encoder = Encoder(config) if draws else None
        self.flow = Flow(config) if config.prior == "flow" else None
        self.decoder = Decoder(config)

    def hear(self, speech_BSD: Tensor) -> Heard:
        """Of two rows of sound that a frame has, its first alone is heard (release)."""
        rows_BTD = (speech_BSD[:, ::2] - self.config.audio_mean) / self.config.audio_std
        frames_BGT = self.ear(rows_BTD.movedim(1, 2))
        return Heard(frames_BGT, None if self.squeeze is None else self.squeeze(frames_BGT))

    def encode(self, motion_BTX: Tensor, speech_BSD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation, (B, Z, t) each, of the latents of a motion. ValueError of a regressor."""
        return self._encoded(motion_BTX, self.hear(speech_BSD), mask_BT)

    def prior(self, z_BZt: Tensor, speech_BSD: Tensor) -> Tensor:
        """Latents (B, Z, t) to where the flow has them, which is normal noise for latents of the sound. Unmasked (release)."""
        return self._noise(z_BZt, self.hear(speech_BSD), torch.ones_like(z_BZt[:, :1]))

    def prior_inverse(self, noise_BZt: Tensor, speech_BSD: Tensor) -> Tensor:
        """Normal noise to latents, (B, Z, t) both: the inverse of `prior`."""
        if self.encoder is None:
            return torch.zeros_like(noise_BZt)
        if self.flow is None:
            return noise_BZt
        heard_BGt = self.hear(speech_BSD).latents
        return self.flow.inverse(noise_BZt, heard_BGt, torch.ones_like(noise_BZt[:, :1]))  # type: ignore[arg-type]  # not None

    def decode(self, z_BZt: Tensor, speech_BSD: Tensor, mask_BT: Tensor) -> Tensor:
        """Latents (B, Z, t) to motion (B, T, X), 0 where it is masked."""
        return self.decoder(z_BZt, self.hear(speech_BSD).frames, over_channels(mask_BT, z_BZt))

    def sample(self, noise_BZt: Tensor, speech_BSD: Tensor, mask_BT: Tensor) -> Tensor:
        """Normal noise, times a temperature, to motion (B, T, X) that the sound may have: one of many."""
        return self.decode(self.prior_inverse(noise_BZt, speech_BSD), speech_BSD, mask_BT)

    def forward(self, motion_BTX: Tensor, speech_BSD: Tensor, mask_BT: Tensor, generator: torch.Generator | None = None) -> Made:
        """A motion to latents, drawn with `generator`, and back."""
        heard = self.hear(speech_BSD)
        if self.encoder is None:
            mean_BZt = motion_BTX.new_zeros(len(motion_BTX), self.config.latent_channels, motion_BTX.shape[1] // STRIDE)
            log_std_BZt, z_BZt = mean_BZt, mean_BZt
        else:
            mean_BZt, log_std_BZt = self._encoded(motion_BTX, heard, mask_BT)
            epsilon_BZt = torch.randn(mean_BZt.shape, generator=generator, device=mean_BZt.device, dtype=mean_BZt.dtype)
            z_BZt = mean_BZt + epsilon_BZt * log_std_BZt.exp()
        noise_BZt = self._noise(z_BZt, heard, of_latents(mask_BT, z_BZt))
        decoded_BTX = self.decoder(z_BZt, heard.frames, over_channels(mask_BT, motion_BTX))
        return Made(decoded_BTX, mean_BZt, log_std_BZt, z_BZt, noise_BZt)

    def _encoded(self, motion_BTX: Tensor, heard: Heard, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        if self.encoder is None:
            raise ValueError("a network without a prior is a regressor, which has no encoder")
        return self.encoder(motion_BTX, heard.latents, of_latents(mask_BT, motion_BTX))

    def _noise(self, z_BZt: Tensor, heard: Heard, mask_B1t: Tensor) -> Tensor:
        return z_BZt if self.flow is None else self.flow(z_BZt, heard.latents, mask_B1t)


def over_channels(mask_BT: Tensor, like: Tensor) -> Tensor:
    """(B, 1, T), of another tensor's type."""
    return mask_BT[:, None].to(like.dtype)


def of_latents(mask_BT: Tensor, like: Tensor) -> Tensor:
    """(B, 1, t): a latent counts if the first of its frames does (release)."""
    return over_channels(mask_BT[:, ::STRIDE], like)
