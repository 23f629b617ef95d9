"""The diffusion transformer of DiffSpeaker: motion queries that attend to each other, to style and step, and to the sound.

    B  batch                    T  frames of motion, padded    S  rows or samples of audio, padded    D  numbers of a row
    V  vertices, X = 3V         C  channels                    H  heads, of width C/H                 K  styles
    x0, x_BTX: motion away from the neutral face, x y z of each vertex in turn, in units of the training set if it is normalised
    step_B: diffusion step n, 0 the cleanest        tokens: style and step, N = 2, keys and values of every frame

Given the same weights it computes what the released network does. `Denoiser.core` is all of it between the two vertex
layers, so that sampling can stay in C dimensions and do once what does not change from step to step.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.diffspeaker.config import Config

# Kernel and stride of wav2vec2-base's convolutions: a row of 25 ms each 20 ms. hubert-base has the same.
ENCODER_CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
BIAS_BYTES = 2**26  # of the attention bias in one piece; longer clips are attended to piece by piece


def speech_encoder() -> nn.Module:
    """wav2vec2-base, untrained; the release loads hubert-base's weights, whose layers are the same, into this class too."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model  # four seconds, which those who read a column need not wait

    encoder = Wav2Vec2Model(Wav2Vec2Config())
    encoder.freeze_feature_encoder()  # the convolutions keep what they learnt from a thousand hours (release)
    return encoder


def alibi_slopes(heads: int) -> Tensor:
    """(H,) float32 of Press et al. (arXiv 2108.12409): 2^(-8/H) to its H-th power; other H take every second of twice as many."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]
    return torch.tensor(slopes + between)


def self_bias(slopes_H: Tensor, period: int, frames: int, first: int, last: int) -> Tensor:
    """Bias on the attention of frames `first` to `last` to all frames, behind two columns of 0 for the tokens: (H, T', T+2).

    −slope for each whole `period` between the two, counted so that 2 x period frames have none: itself, period − 1 before it
    and period after. (As in the release, which builds it as a table; nothing is masked, unlike FaceFormer's.)
    """
    distance = torch.arange(frames - 1, -frames, -1, device=slopes_H.device)  # of a key before its query
    fade = -(torch.where(distance < 0, -distance - 1, distance) // period).to(slopes_H.dtype)
    # Row i is fade shifted by i, so all rows are one strided view.
    rows = fade.unfold(0, frames, 1)[frames - last : frames - first].flip(0)
    bias = slopes_H.new_zeros(len(slopes_H), last - first, frames + 2)
    torch.mul(slopes_H[:, None, None], rows, out=bias[:, :, 2:])
    return bias


class SelfBias:
    """The self-attention bias of a batch, kept where it is small and made anew, piece by piece, where clips are long.

    frames_B: real frames of each clip; what is padded is hidden from every frame, tokens from none.
    """

    def __init__(self, slopes_H: Tensor, period: int, frames_B: Tensor):
        self.slopes_H, self.period, self.frames = slopes_H, period, int(frames_B.max())
        padded_BT = torch.arange(self.frames, device=frames_B.device) >= frames_B[:, None]
        self.hidden_B11N = F.pad(padded_BT, (2, 0))[:, None, None] if bool(padded_BT.any()) else None
        copies = 1 if self.hidden_B11N is None else len(frames_B)
        row_bytes = 4 * copies * len(slopes_H) * (self.frames + 2)
        self.rows = max(1, min(self.frames, BIAS_BYTES // row_bytes))
        self.whole = self._piece(0, self.frames) if self.rows == self.frames else None

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Runs of query frames and their bias (1 or B, H, T', T+2)."""
        if self.whole is not None:
            yield slice(0, self.frames), self.whole
            return
        for first in range(0, self.frames, self.rows):
            last = min(first + self.rows, self.frames)
            yield slice(first, last), self._piece(first, last)

    def _piece(self, first: int, last: int) -> Tensor:
        bias = self_bias(self.slopes_H, self.period, self.frames, first, last)[None]
        return bias if self.hidden_B11N is None else bias.masked_fill(self.hidden_B11N, -math.inf)


class KeysValues(NamedTuple):
    """Projections of the same rows (B, N, C)."""

    keys: Tensor
    values: Tensor


class TokenKeysValues(NamedTuple):
    """A layer's keys and values of style and step, for both its attentions."""

    self_attention: KeysValues
    cross_attention: KeysValues


class Attention(nn.Module):
    """What both attentions have: projections, heads, and dropout of the weights."""

    def __init__(self, channels: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.projection = nn.Linear(channels, 3 * channels)  # queries, keys, values
        self.out = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        nn.init.zeros_(self.out.bias)

    def queries(self, x_BTC: Tensor) -> Tensor:
        channels = x_BTC.shape[-1]
        return F.linear(x_BTC, self.projection.weight[:channels], self.projection.bias[:channels])

    def keys_values(self, x_BNC: Tensor) -> KeysValues:
        channels = x_BNC.shape[-1]
        both = F.linear(x_BNC, self.projection.weight[channels:], self.projection.bias[channels:])
        return KeysValues(*both.chunk(2, dim=-1))

    def in_heads(self, x_BNC: Tensor) -> Tensor:
        """(B, H, N, C/H)"""
        return x_BNC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SelfAttention(Attention):
    """Each frame to style, step and all frames, the nearer the more."""

    def forward(self, x_BTC: Tensor, tokens: KeysValues, bias: SelfBias) -> Tensor:
        queries, *frames = self.projection(x_BTC).chunk(3, dim=-1)
        joined = (torch.cat(pair, dim=1) for pair in zip(tokens, frames, strict=True))
        queries_BHTd, keys_BHNd, values_BHNd = map(self.in_heads, (queries, *joined))
        dropout = self.dropout if self.training else 0.0
        pieces = [
            F.scaled_dot_product_attention(
                queries_BHTd[:, :, run], keys_BHNd, values_BHNd, piece.to(queries.dtype), dropout_p=dropout
            )
            for run, piece in bias.pieces()
        ]
        return self.out(torch.cat(pieces, dim=2).transpose(1, 2).flatten(2))


class CrossAttention(Attention):
    """Each frame to style, step and its own sound: the release's mask leaves these three keys, so three are all there are."""

    def forward(self, x_BTC: Tensor, tokens: KeysValues, sound: KeysValues) -> Tensor:
        queries_BHTd, sound_keys, sound_values = map(self.in_heads, (self.queries(x_BTC), *sound))
        token_keys, token_values = map(self.in_heads, tokens)
        to_tokens_BHTN = queries_BHTd @ token_keys.transpose(2, 3)
        to_sound_BHT1 = (queries_BHTd * sound_keys).sum(-1, keepdim=True)
        logits = torch.cat((to_tokens_BHTN, to_sound_BHT1), dim=-1) / math.sqrt(queries_BHTd.shape[-1])
        weights = F.dropout(logits.softmax(-1), self.dropout, self.training).to(sound_values.dtype)
        heard = weights[..., :-1] @ token_values + weights[..., -1:] * sound_values
        return self.out(heard.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Pre-norm decoder block, without a norm at its end. Tokens and sound are neither normed nor changed."""

    def __init__(self, config: Config):
        super().__init__()
        channels = config.channels
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.self_attention = SelfAttention(channels, config.heads, config.dropout)
        self.cross_attention = CrossAttention(channels, config.heads, config.dropout)
        self.linear1 = nn.Linear(channels, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, channels)
        self.dropout = nn.Dropout(config.dropout)

    def token_keys_values(self, tokens_BNC: Tensor) -> TokenKeysValues:
        return TokenKeysValues(*(attention.keys_values(tokens_BNC) for attention in (self.self_attention, self.cross_attention)))

    def forward(self, x_BTC: Tensor, tokens: TokenKeysValues, sound: KeysValues, bias: SelfBias) -> Tensor:
        x_BTC = x_BTC + self.dropout(self.self_attention(self.norm1(x_BTC), tokens.self_attention, bias))
        x_BTC = x_BTC + self.dropout(self.cross_attention(self.norm2(x_BTC), tokens.cross_attention, sound))
        inside = self.dropout(F.gelu(self.linear1(self.norm3(x_BTC))))
        return x_BTC + self.dropout(self.linear2(inside))


class Denoiser(nn.Module):
    """Clean motion from noisy motion, what is heard, who speaks and how noisy it is. 19.65 M (VOCASET), 158.9 M (BIWI)."""

    def __init__(self, config: Config):
        super().__init__()
        channels, layers = config.channels, config.layers
        self.period, self.step_width = config.period, config.step_width
        self.audio_in = nn.Linear(config.audio_width * (1 + 2 * config.audio_context), channels)
        self.motion_in = nn.Linear(3 * config.vertices, channels)
        self.motion_out = nn.Linear(channels, 3 * config.vertices)
        self.step1 = nn.Linear(config.step_width, channels * layers)
        self.step2 = nn.Linear(channels * layers, channels * layers)
        self.style = nn.Embedding(config.styles, channels * layers)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(layers))
        self.dropout = nn.Dropout(config.dropout)
        self.slopes_H: Tensor
        self.register_buffer("slopes_H", alibi_slopes(config.heads), persistent=False)
        # The face starts at the template, and the first step of training already moves this layer.
        nn.init.zeros_(self.motion_out.weight)
        nn.init.zeros_(self.motion_out.bias)

    def style_tokens(self, style_BK: Tensor) -> list[Tensor]:
        """A token (B, 1, C) for each layer; weights of several styles give the style between them."""
        return list((style_BK @ self.style.weight)[:, None].chunk(len(self.layers), dim=-1))

    def step_tokens(self, steps_B: Tensor) -> list[Tensor]:
        """A token (B, 1, C) for each layer."""
        half = self.step_width // 2
        weight = self.step1.weight
        angles = steps_B[:, None] * torch.exp(-math.log(10_000) / half * torch.arange(half).to(weight))
        code = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return list(self.step2(F.silu(self.step1(code)))[:, None].chunk(len(self.layers), dim=-1))

    def keys_values(self, tokens: list[Tensor]) -> list[TokenKeysValues]:
        """Of one token for each layer."""
        return [layer.token_keys_values(token) for layer, token in zip(self._layers, tokens, strict=True)]

    def sound_keys_values(self, heard_BTD: Tensor) -> list[KeysValues]:
        """Of what each frame hears, for each layer."""
        sound_BTC = self.audio_in(heard_BTD)
        return [layer.cross_attention.keys_values(sound_BTC) for layer in self._layers]

    def bias(self, frames_B: Tensor) -> SelfBias:
        return SelfBias(self.slopes_H, self.period, frames_B)

    def core(self, z_BTC: Tensor, tokens: list[TokenKeysValues], sound: list[KeysValues], bias: SelfBias) -> Tensor:
        """From the output of `motion_in` to the input of `motion_out`."""
        h_BTC = self.dropout(z_BTC + self._positions(z_BTC))
        for layer, token, heard in zip(self.layers, tokens, sound, strict=True):
            h_BTC = layer(h_BTC, token, heard, bias)
        return h_BTC

    def forward(self, x_BTX: Tensor, step_B: Tensor, style_BK: Tensor, heard_BTD: Tensor, frames_B: Tensor) -> Tensor:
        """Clean motion (B, T, X) from noisy.

        frames_B: real frames of each clip; what the others hold changes nothing in these.
        """
        tokens = joined(self.keys_values(self.style_tokens(style_BK)), self.keys_values(self.step_tokens(step_B)))
        h_BTC = self.core(self.motion_in(x_BTX), tokens, self.sound_keys_values(heard_BTD), self.bias(frames_B))
        return self.motion_out(h_BTC)

    @property
    def _layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.layers))

    def _positions(self, x_BTC: Tensor) -> Tensor:
        """(T, C): sine in even and cosine in odd channels, the same again after each period; of any length."""
        frames, channels = x_BTC.shape[1:]
        place = (torch.arange(frames, device=x_BTC.device) % self.period)[:, None]
        angles = place * torch.exp(-math.log(10_000) / channels * torch.arange(0, channels, 2).to(self.slopes_H))
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def joined(styles: list[TokenKeysValues], steps: list[TokenKeysValues]) -> list[TokenKeysValues]:
    """Style in front of step, for each layer; their order changes nothing."""

    def along_tokens(style: KeysValues, step: KeysValues) -> KeysValues:
        return KeysValues(*(torch.cat(pair, dim=1) for pair in zip(style, step, strict=True)))

    return [TokenKeysValues(*map(along_tokens, style, step)) for style, step in zip(styles, steps, strict=True)]


class DiffSpeaker(nn.Module):
    """The denoiser, what it hears with, and the units its motion is in.

    motion_mean_X, motion_scale: x0 = (vertices − template − mean) / scale; 0 and 1 where motion is not normalised.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.denoiser = Denoiser(config)
        self.encoder = speech_encoder() if config.encodes else None
        self.motion_mean_X: Tensor
        self.motion_scale: Tensor
        self.register_buffer("motion_mean_X", torch.zeros(3 * config.vertices))
        self.register_buffer("motion_scale", torch.ones(()))

    def normalised(self, motion_BTX: Tensor) -> Tensor:
        """x0 of vertices less their template."""
        return (motion_BTX - self.motion_mean_X) / self.motion_scale

    def features(self, audio: Tensor, sizes_B: Tensor) -> tuple[Tensor, Tensor]:
        """The audio's rows (B, S', D), 50 a second, and how many of them are real in each clip.

        audio: rows (B, S, D) of the column; or samples (B, S), 16 kHz, each clip with mean 0 and variance 1 and then padded
        with zeros. Padding changes what the encoder hears, as its first layer normalises over all samples (transformers
        issue 21534): one clip at a time is exact.
        """
        if self.encoder is None:
            return (audio - self.config.audio_mean) / self.config.audio_std, sizes_B
        real_BS = torch.arange(audio.shape[1], device=audio.device) < sizes_B[:, None]
        rows = self.encoder(audio, attention_mask=None if bool(real_BS.all()) else real_BS.long()).last_hidden_state
        return rows, encoder_rows(sizes_B)

    def heard(self, features_BSD: Tensor, sizes_B: Tensor, frames_B: Tensor) -> Tensor:
        """What each frame hears, (B, T, D (2 context + 1)).

        Each clip's rows are stretched linearly over its own frames, first on first and last on last. (The release stretches
        a whole padded batch by one ratio, which at batch size 1, where it is evaluated, is the same.)
        """
        frames_BTD = stretch(features_BSD, sizes_B, frames_B)
        if self.training and self.config.audio_noise:
            frames_BTD = frames_BTD + self.config.audio_noise * torch.randn_like(frames_BTD)
        context = self.config.audio_context
        if not context:
            return frames_BTD
        real_BT1 = (torch.arange(frames_BTD.shape[1], device=frames_B.device) < frames_B[:, None])[..., None]
        padded = F.pad(frames_BTD * real_BT1, (0, 0, context, context))
        return padded.unfold(1, 2 * context + 1, 1).transpose(2, 3).flatten(2)

    def forward(self, x_BTX: Tensor, step_B: Tensor, style_BK: Tensor, heard_BTD: Tensor, frames_B: Tensor) -> Tensor:
        return self.denoiser(x_BTX, step_B, style_BK, heard_BTD, frames_B)


def encoder_rows(samples_B: Tensor) -> Tensor:
    """Rows that the encoder's convolutions make of so many samples: floor((L − 400) / 320) + 1 in the base models."""
    rows_B = samples_B
    for kernel, stride in ENCODER_CONVOLUTIONS:
        rows_B = (rows_B - kernel) // stride + 1
    return rows_B


def stretch(rows_BSD: Tensor, sizes_B: Tensor, frames_B: Tensor) -> Tensor:
    """Linear interpolation with aligned corners of each clip's `sizes` rows at its `frames` places; (B, max frames, D)."""
    frame_T = torch.arange(int(frames_B.max()), device=rows_BSD.device)
    ratio_B1 = ((sizes_B - 1).double() / (frames_B - 1).clamp(min=1))[:, None]
    place_BT = torch.minimum(frame_T * ratio_B1, (sizes_B - 1)[:, None].double())
    lower_BT = place_BT.floor().long()
    upper_BT = torch.minimum(lower_BT + 1, (sizes_B - 1)[:, None])
    share_BT1 = (place_BT - lower_BT)[..., None].to(rows_BSD.dtype)

    def at(index_BT: Tensor) -> Tensor:
        return rows_BSD.gather(1, index_BT[..., None].expand(-1, -1, rows_BSD.shape[-1]))

    return torch.lerp(at(lower_BT), at(upper_BT), share_BT1)
