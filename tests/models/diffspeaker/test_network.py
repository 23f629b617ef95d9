"""The network against the specification's figures, and against the same network written from it in another way."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from models.diffspeaker import network as network_module
from models.diffspeaker.config import PRESETS
from models.diffspeaker.network import Denoiser, DiffSpeaker, SelfBias, alibi_slopes, encoder_rows, self_bias, stretch
from tests.models.diffspeaker import reference
from tests.models.diffspeaker.corpus import SMALL, randomised


def inputs(config, frames, seed=1):
    """A batch of clips of these lengths, with noise where they are padded."""
    torch.manual_seed(seed)
    count, longest = len(frames), max(frames)
    x = torch.randn(count, longest, 3 * config.vertices)
    heard = torch.randn(count, longest, config.audio_width * (1 + 2 * config.audio_context))
    style = torch.rand(count, config.styles)
    return x, torch.randint(1000, (count,)), style, heard, torch.tensor(frames)


@pytest.mark.parametrize("preset, parameters", [("vocaset", 19_654_877), ("biwi", 158_887_390)])
def test_size_of_the_released_networks(preset, parameters):
    with torch.device("meta"):
        denoiser = Denoiser(PRESETS[preset])
    assert sum(p.numel() for p in denoiser.parameters()) == parameters


# Specification §12.1
def test_slopes():
    assert alibi_slopes(4).tolist() == [0.25, 0.0625, 0.015625, 0.00390625]
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    assert alibi_slopes(6).tolist() == [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]  # every second of eight


def test_golden_row_of_the_bias():
    (row,) = self_bias(torch.ones(1), 30, 200, 100, 101)[0][:, 2:]
    assert [row[j].item() for j in (70, 71, 130, 131, 160, 161)] == [-1, 0, 0, -1, -1, -2]
    assert (row == 0).sum() == 60
    assert (row[71:131] == 0).all()


@pytest.mark.parametrize("period, frames", [(1, 1), (3, 2), (5, 23), (30, 61)])
def test_the_bias_is_the_table_of_the_release(period, frames):
    table = reference.bias_table(4, period, frames)
    assert torch.equal(self_bias(alibi_slopes(4), period, frames, 0, frames), table)
    first, last = frames // 3, frames - frames // 4
    assert torch.equal(self_bias(alibi_slopes(4), period, frames, first, last), table[:, first:last])


# §12.2
def test_tokens_are_seen_under_any_padding():
    bias = SelfBias(alibi_slopes(4), 5, torch.tensor([1, 6, 4]))
    ((_, piece),) = bias.pieces()
    assert piece.shape == (3, 4, 6, 8)
    assert (piece[..., :2] == 0).all()
    assert [(row > -torch.inf).sum().item() for row in piece[:, 0, 0]] == [3, 8, 6]


@pytest.mark.parametrize("layers", [1, 2])
def test_computes_what_the_specification_says(layers):
    config = replace(SMALL, layers=layers)
    network = randomised(config).double()
    x, step, style, heard, frames = (value.double() if value.is_floating_point() else value for value in inputs(config, [23, 9]))
    padded = torch.arange(23) >= frames[:, None]
    weights = dict(network.named_parameters())
    table = reference.bias_table(4, 5, 23)
    with torch.inference_mode():
        ours = network(x, step, style, heard, frames)
        for tokens_behind in (False, True):
            theirs = reference.denoise(weights, x, step, style, heard, table, 5, 4, layers, padded, tokens_behind)
            assert ours.std() > 0.1
            assert (ours - theirs)[~padded].abs().max() < 1e-12


# §12.3
def test_a_frame_hears_its_own_sound_alone():
    network = randomised(SMALL)
    network.denoiser.layers[0].self_attention.out.weight.data.zero_()
    x, step, style, heard, frames = inputs(SMALL, [12])
    changed = heard.clone()
    changed[:, 7] += 1
    with torch.inference_mode():
        difference = (network(x, step, style, heard, frames) - network(x, step, style, changed, frames))[0].abs().amax(dim=1)
    assert difference[7] > 1e-3
    assert difference[torch.arange(12) != 7].max() == 0


def test_every_input_reaches_the_output():
    network = randomised(SMALL)
    values = list(inputs(SMALL, [12]))
    with torch.inference_mode():
        before = network(*values)
        for index in range(4):
            changed = list(values)
            changed[index] = changed[index] // 2 + 1 if index == 1 else changed[index] * 0.5
            assert (before - network(*changed)).abs().max() > 1e-3


# §12.4
def test_an_untrained_network_gives_the_template():
    network = DiffSpeaker(SMALL).eval()
    with torch.inference_mode():
        assert not network(*inputs(SMALL, [9, 4])).any()


# §12.8
def test_padding_changes_nothing():
    network = randomised(SMALL)
    x, step, style, heard, frames = inputs(SMALL, [17, 6, 11])
    with torch.inference_mode():
        together = network(x, step, style, heard, frames)
        for row, count in enumerate(frames.tolist()):
            own = slice(row, row + 1)
            alone = network(x[own, :count], step[own], style[own], heard[own, :count], frames[own])
            assert (together[row, :count] - alone[0]).abs().max() < 1e-5


def test_attention_in_pieces_is_attention_at_once(monkeypatch):
    network = randomised(SMALL)
    values = inputs(SMALL, [50, 31])
    with torch.inference_mode():
        whole = network(*values)
        monkeypatch.setattr(network_module, "BIAS_BYTES", 7 * 4 * 2 * 4 * 52)
        bias = network.denoiser.bias(values[4])
        assert [piece.shape[2] for _, piece in bias.pieces()] == [7] * 7 + [1]
        assert (network(*values) - whole).abs().max() < 1e-5


def test_positions_repeat_after_each_period():
    positions = DiffSpeaker(SMALL).denoiser._positions(torch.zeros(1, 23, 32))
    assert torch.equal(positions[:5], positions[5:10])
    assert torch.equal(positions[20:], positions[:3])
    assert positions[0, :4].tolist() == [0, 1, 0, 1]


def test_a_style_between_two():
    network = randomised(SMALL)
    table = network.denoiser.style.weight
    (token,) = network.denoiser.style_tokens(torch.tensor([[0.25, 0.75]]))
    assert torch.allclose(token[0, 0], 0.25 * table[0] + 0.75 * table[1])


def test_each_clip_s_rows_are_stretched_over_its_own_frames():
    rows = torch.randn(2, 9, 3)
    stretched = stretch(rows, torch.tensor([9, 5]), torch.tensor([6, 7]))
    for row, (size, frames) in enumerate([(9, 6), (5, 7)]):
        own = rows[row : row + 1, :size].transpose(1, 2)
        theirs = nn.functional.interpolate(own, frames, mode="linear", align_corners=True)[0].T
        assert torch.allclose(stretched[row, :frames], theirs, atol=1e-5)
    assert torch.equal(stretch(rows, torch.tensor([9, 1]), torch.tensor([1, 3]))[:, 0], rows[:, 0])


def test_context_is_the_sound_around_a_frame():
    config = replace(SMALL, audio_context=2)
    network = DiffSpeaker(config).eval()
    rows = torch.randn(2, 8, 16)
    frames = torch.tensor([8, 5])
    heard = network.heard(rows, frames, frames).unflatten(2, (5, 16))
    assert torch.allclose(heard[0, 4], rows[0, 2:7], atol=1e-6)
    assert not heard[0, 0, :2].any()
    assert torch.allclose(heard[1, 4, :3], rows[1, 2:5], atol=1e-6)
    assert not heard[1, 4, 3:].any(), "what is padded is not heard"


def tiny_encoder():
    """wav2vec2-base with one layer instead of twelve, and narrower inside."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    encoder = Wav2Vec2Model(Wav2Vec2Config(num_hidden_layers=1, intermediate_size=64, conv_dim=(16,) * 7, num_attention_heads=2))
    encoder.freeze_feature_encoder()
    return encoder


def test_the_encoder_s_rows_are_those_of_its_convolutions(monkeypatch):
    monkeypatch.setattr(network_module, "speech_encoder", tiny_encoder)
    network = DiffSpeaker(replace(SMALL, audio="wav2vec2-base", audio_width=768)).eval()
    for samples in (400, 719, 720, 16_000):
        rows, sizes = network.features(torch.randn(1, samples), torch.tensor([samples]))
        assert rows.shape == (1, int(sizes), 768)
        assert int(sizes) == (samples - 400) // 320 + 1 == int(encoder_rows(torch.tensor(samples)))


def test_the_encoder_hears_padding(monkeypatch):
    """Not a wish but a fact to know: its first norm is over all samples, so that batches train on other features."""
    monkeypatch.setattr(network_module, "speech_encoder", tiny_encoder)
    network = DiffSpeaker(replace(SMALL, audio="wav2vec2-base", audio_width=768)).eval()
    sound = torch.randn(1, 8000)
    alone, _ = network.features(sound, torch.tensor([8000]))
    both = torch.cat((nn.functional.pad(sound, (0, 8000)), torch.randn(1, 16_000)))
    together, sizes = network.features(both, torch.tensor([8000, 16_000]))
    assert sizes.tolist() == [24, 49]
    assert (together[:1, :24] - alone).abs().max() > 1e-4
