"""Speech encoders in the layout of the model hub, small and untrained; and sound for them."""

from pathlib import Path

import numpy as np
import torch
from transformers import HubertConfig, HubertModel, PreTrainedModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.speech.base import RATE

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": (16,) * 7}
LARGE = SMALL | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def untrained(name: str) -> PreTrainedModel:
    """What `name` is, but for its size; its weights are twice those of a fresh model, so that attention matters."""
    torch.manual_seed(0)
    model = {
        "hubert-large": lambda: HubertModel(HubertConfig(**LARGE)),
        "hubert-base": lambda: HubertModel(HubertConfig(**SMALL)),
        "wav2vec2-base": lambda: Wav2Vec2Model(Wav2Vec2Config(**SMALL)),
    }[name]()
    with torch.no_grad():
        for weight in model.encoder.layers.parameters():
            weight.mul_(2)
    return model.eval()


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllables of changing pitch, loudness and noise, with pauses: mono float32 at 16 kHz."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    syllables = int(4 * seconds) + 2
    loudness, pitch, breath = (np.interp(time * 4, np.arange(syllables), random.uniform(*span, syllables)) for span in SPANS)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    buzz = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 10))
    return (loudness.clip(min=0) * (buzz + breath * random.normal(size=len(time)))).astype(np.float32)


SPANS = ((-0.1, 0.3), (90, 220), (0, 1))
