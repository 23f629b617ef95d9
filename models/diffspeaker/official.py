"""`python -m models.diffspeaker.official FILE PRESET AUDIO FOLDER`: the authors' checkpoint into one of ours.

    FILE     diffspeaker_{wav2vec2,hubert}_{vocaset,biwi}.ckpt     PRESET   vocaset or biwi
    AUDIO    wav2vec2-base or hubert-base                          FOLDER   of the checkpoint to write

Of the file's 241 tensors all are taken but one, a table of positions. Generate with sampler "release", with which they were
tuned and scored.
"""

import re
import sys
from pathlib import Path

import torch

from models.checkpoint import write_checkpoint
from models.diffspeaker.config import Config
from models.diffspeaker.network import DiffSpeaker
from models.released import NotTheRelease, check_tensors, read_released

DERIVED = {"denoiser.PPE.pe"}  # tables that follow from the configuration
OURS = {"motion_mean_X", "motion_scale"}  # 0 and 1: the release does not normalise

# Our names to the release's, each rule on what the one before it left.
NAMES = (
    (r"^encoder\.", "audio_encoder."),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),  # as transformers 4.26 calls the two
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"^denoiser\.audio_in\.", "denoiser.audio_feature_map."),
    (r"^denoiser\.motion_in\.", "denoiser.vertice_map."),
    (r"^denoiser\.motion_out\.", "denoiser.motion_decoder."),
    (r"^denoiser\.step([12])\.", r"denoiser.time_embedding.linear_\1."),
    (r"^denoiser\.style\.", "denoiser.obj_vector."),
    (r"^denoiser\.layers\.", "denoiser.transformer_decoder.layers."),
    (r"attention\.projection\.", "attention.in_proj_"),
    (r"attention\.out\.", "attention.out_proj."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.cross_attention\.", ".multihead_attn."),
)


def release_name(name: str) -> str:
    """What the release calls one of our tensors."""
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def read_official(file: Path, config: Config) -> DiffSpeaker:
    """The network with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    content = read_released(file)
    found = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise NotTheRelease(f"{file} has no state_dict: the release's checkpoints of Lightning 1.9 have one")
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in DiffSpeaker(config).state_dict().items() if name not in OURS}
    expected = {release_name(name): shape for name, shape in ours.items()}
    weights = {old_name(name): tensor for name, tensor in found.items() if name not in DERIVED}
    check_tensors(file, expected, weights)
    network = DiffSpeaker(config)
    initial = network.state_dict()
    network.load_state_dict({name: initial[name] if name in OURS else weights[release_name(name)].float() for name in initial})
    return network.eval()


def old_name(name: str) -> str:
    """Names of newer libraries as the release's; the file may have been saved again."""
    for ours, theirs in NAMES[1:3]:
        name = re.sub(ours, theirs, name)
    return name


def convert(file: Path, config: Config, folder: Path) -> None:
    """Writes the file's network as a checkpoint folder. Raises NotTheRelease."""
    card = (
        f"# diffspeaker\n\nThe authors' released weights, converted from {file.name}. Generate with the sampler `release`.\n\n"
        "The release names no licence. The faces it generates are those of the people it was trained on: use it only as they\n"
        "would agree to.\n"
    )
    write_checkpoint(folder, read_official(file, config), config, card)


if __name__ == "__main__":
    source, preset, audio, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {"audio": audio}), Path(target))
