"""HuBERT (arXiv 2106.07447) and wav2vec 2.0 (arXiv 2006.11477) through transformers, from the model hub or a folder.

Of a folder three files are read: settings, settings of the preparation, and weights as safetensors, so that nothing in it can
run code. The hub's copies are pinned by commit: once they are in its cache no further request is made.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.speech.base import RATE, Encoder, EncoderMissing, Moments, Piece

WEIGHTS = "model.safetensors"
PREPARATION = "preprocessor_config.json"
FILES = ("config.json", PREPARATION, WEIGHTS)

# Repository and commit. The two HuBERT repositories hold a pickle on their main branch; these commits add the same weights
# as safetensors.
HUB = {
    "hubert-large": ("facebook/hubert-large-ls960-ft", "ba42e7f7a888fd65f7af7849c452e3e7d5216aad"),
    "hubert-base": ("facebook/hubert-base-ls960", "af46f65f540dc3ca7aa59f46c6c3d5dbb4374fa8"),
    "wav2vec2-base": ("facebook/wav2vec2-base-960h", "22aad52d435eb6dbaf354bdad9b0da84ce7d6156"),
}


def fetch(name: str) -> Path:
    """The folder of one of `HUB` in the hub's cache, filled if it is not. Raises EncoderMissing."""
    from huggingface_hub import hf_hub_download

    repository, commit = HUB[name]
    try:
        (folder,) = {Path(hf_hub_download(repository, file, revision=commit)).parent for file in FILES}
    except OSError as error:  # those of huggingface_hub are
        raise EncoderMissing(
            f"the speech encoder {name} cannot be fetched: {str(error).strip().splitlines()[0]}\n"
            f"Connect this machine to the model hub (or name a mirror in HF_ENDPOINT). Or fetch it on another machine with "
            f"`hf download {repository} {' '.join(FILES)} --revision {commit} --local-dir DIR`, copy DIR here and name it as "
            f"speech.folder in params.yaml. Or choose moonshine-tiny, which needs no hub."
        ) from error
    return folder


class HubEncoder(Encoder):
    """The model in `folder`, in the layout of the hub.

    layer: whose output is given; 0 is the transformer's input, −1 the output of the whole, which in the large models is
    normalised once more than that of their last layer.

    Base models normalise each channel of their first convolution over time, so that a row depends on the loudness of the whole
    sound, on where it was cut and on the padding beside it. Here they are given the moments of the whole sound instead: pieces
    then have the rows of the whole up to the transformer, and a batch those of its pieces alone.

    The pieces are GeneFace's 20 s, but with surroundings: the positional convolution sees 1.28 s to each side.

    Raises EncoderMissing and ValueError.
    """

    piece_s, overlap_s, fade_s, surround_s = 20.0, 4.0, 1.0, 0.0

    def __init__(self, folder: Path, layer: int, device: str):
        preparation = _preparation(folder)
        self.levelled = preparation["do_normalize"]
        self._model = _model(folder).to(device)
        self._device = device
        config = self._model.config
        if not -1 <= layer <= config.num_hidden_layers:
            raise ValueError(f"{folder} has the layers 0 to {config.num_hidden_layers}, and -1 for its output; not {layer}")
        self._layer = layer
        self.width = config.hidden_size
        self.stride, self.field = 1, 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            self.field += (kernel - 1) * self.stride
            self.stride *= step
        self._first = self._model.feature_extractor.conv_layers[0]
        self._norm: GivenNorm | None = None
        if config.feat_extract_norm == "group":
            self._norm = self._first.layer_norm = GivenNorm(self._first.layer_norm)

    def moments(self, samples: np.ndarray) -> Moments | None:
        """Of the first convolution's outputs: as it is linear, they follow from those of the windows it slides over."""
        if self._norm is None:
            return None
        convolution = self._first.conv
        (size,), (step,) = convolution.kernel_size, convolution.stride
        windows = np.lib.stride_tricks.sliding_window_view(samples, size)[::step]
        total, products = np.zeros(size), np.zeros((size, size))
        for start in range(0, len(windows), 100_000):
            block = windows[start : start + 100_000].astype(np.float64)
            total += block.sum(axis=0)
            products += block.T @ block
        mean = total / len(windows)
        covariance = products / len(windows) - np.outer(mean, mean)
        weight = convolution.weight[:, 0].double().cpu().numpy()
        bias = 0 if convolution.bias is None else convolution.bias.double().cpu().numpy()
        return weight @ mean + bias, np.einsum("ck,kl,cl->c", weight, covariance, weight).clip(min=0)

    @torch.inference_mode()
    def rows(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        lengths = [len(piece.samples) for piece in pieces]
        samples_BS = torch.zeros(len(pieces), max(lengths), device=self._device)
        for row, piece in zip(samples_BS, pieces, strict=True):
            row[: len(piece.samples)] = torch.from_numpy(piece.samples)
        mask_BS = None
        if min(lengths) < max(lengths):
            mask_BS = torch.arange(max(lengths), device=self._device) < torch.tensor(lengths, device=self._device)[:, None]
        if self._norm is not None:
            self._norm.given([piece.moments for piece in pieces], self._device)
        heard = self._model(samples_BS, attention_mask=mask_BS, output_hidden_states=self._layer != -1)
        rows_BTD = heard.last_hidden_state if self._layer == -1 else heard.hidden_states[self._layer]
        counts = [(length - self.field) // self.stride + 1 for length in lengths]
        return [rows_TD[:count].cpu().numpy() for rows_TD, count in zip(rows_BTD, counts, strict=True)]


class GivenNorm(nn.Module):
    """A group norm of one channel a group, with moments that are given instead of taken from what passes through."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def given(self, moments: Sequence[Moments | None], device: str) -> None:
        mean_BC, variance_BC = (torch.from_numpy(np.stack(of_all)) for of_all in zip(*moments, strict=True))
        scale_BC = self.weight.double().cpu() / (variance_BC + self.eps).sqrt()
        self._scale_BC1 = scale_BC[..., None].float().to(device)
        self._shift_BC1 = (self.bias.double().cpu() - mean_BC * scale_BC)[..., None].float().to(device)

    def forward(self, values_BCT: torch.Tensor) -> torch.Tensor:
        return values_BCT.mul_(self._scale_BC1).add_(self._shift_BC1)


def complete(folder: Path) -> Path:
    """The folder, if all three files stand in it. Raises EncoderMissing."""
    for file in FILES:
        if not (folder / file).is_file():
            raise EncoderMissing(
                f"{folder / file} does not exist: speech.folder in params.yaml names a folder with {', '.join(FILES)}, as "
                f"`hf download` leaves it. Weights in a pickle, as pytorch_model.bin, are not read: they could run code."
            )
    return folder


def _preparation(folder: Path) -> dict[str, Any]:
    preparation = json.loads((folder / PREPARATION).read_text())
    if preparation.get("sampling_rate") != RATE or not isinstance(preparation.get("do_normalize"), bool):
        raise EncoderMissing(f"{folder / PREPARATION} is not that of a speech encoder that hears {RATE} Hz")
    return preparation


def _model(folder: Path) -> Any:
    from transformers import HubertModel, Wav2Vec2Model
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    kinds: dict[str, Any] = {"hubert": HubertModel, "wav2vec2": Wav2Vec2Model}
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind not in kinds:
        raise EncoderMissing(f"{folder / 'config.json'} is of a {kind!r}; a speech encoder is one of {', '.join(kinds)}")
    try:
        model, loaded = kinds[kind].from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # safetensors and transformers raise many kinds for a damaged file
        raise EncoderMissing(f"the speech encoder in {folder} cannot be read: {error}. Fetch it again.") from error
    # The mask's embedding serves training alone, and some checkpoints lack it.
    lacking = sorted(set(loaded["missing_keys"]) - {"masked_spec_embed"})
    if lacking:
        raise EncoderMissing(
            f"{folder / WEIGHTS} lacks {len(lacking)} tensors of a {kind}, such as {lacking[0]}. Fetch it again."
        )
    return model.eval().requires_grad_(False)
