"""`python -m models.motion.official FILE PRESET FOLDER`: the authors' generator of motion into a checkpoint of ours.

    FILE     model_ckpt_steps_<N>.ckpt of `lm3d_vae_sync`     PRESET   lrs3     FOLDER   of the checkpoint to write

All of its 219 tensors are taken, and the sync expert that it was trained with, which is in the file too.
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from models.checkpoint import write_checkpoint
from models.motion.config import SYNCNET, Config
from models.motion.network import MotionVAE
from models.released import NotTheRelease, below, check_tensors, read_tasks
from models.syncnet import official as syncnet
from models.syncnet.config import PRESETS as EXPERTS
from models.syncnet.config import Config as ExpertConfig
from models.syncnet.network import SyncNet

MODEL, EXPERT = "model.", "syncnet_task.model."  # the two networks in the file

# Our names to the release's, each rule on what the one before it left.
NAMES = (
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"\.stack\.", ".wn."),
    (r"\.wn\.condition\.", ".wn.cond_layer."),
    (r"\.wn\.gates\.", ".wn.in_layers."),
    (r"\.wn\.outs\.", ".wn.res_skip_layers."),
    (r"^ear\.", "mel_encoder."),
    (r"^squeeze\.", "vae.g_pre_net.0."),
    (r"^encoder\.down\.", "vae.encoder.pre_net.0."),
    (r"^decoder\.up\.", "vae.decoder.pre_net.0."),
    (r"^(encoder|decoder)\.out\.", r"vae.\1.out_proj."),
    (r"^(encoder|decoder)\.", r"vae.\1."),
    (r"^flow\.couplings\.(\d+)\.inward\.", r"flow.couplings.\1.pre."),
    (r"^flow\.couplings\.(\d+)\.wn\.", r"flow.couplings.\1.enc."),
    (r"^flow\.couplings\.(\d+)\.outward\.", r"flow.couplings.\1.post."),
)
COUPLING = re.compile(r"^flow\.couplings\.(\d+)")  # each is followed by a flip, which has a number too


def release_name(name: str) -> str:
    """What the release calls one of our tensors."""
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return COUPLING.sub(lambda coupling: f"vae.prior_flow.flows.{2 * int(coupling[1])}", name)


def read_official(file: Path, config: Config, of_expert: ExpertConfig) -> tuple[MotionVAE, SyncNet]:
    """The two networks with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    tensors = read_tasks(file)
    if f"{MODEL}pitch_embed.weight" in tensors:
        raise NotTheRelease(f"{file} is of the variant that hears pitch too: take `lm3d_vae_sync` without it")
    if unknown := sorted(name for name in tensors if not name.startswith((MODEL, EXPERT))):
        raise NotTheRelease(f"{file} has {', '.join(unknown[:3])}, which no generator of motion has: it is of another training")
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in MotionVAE(config).state_dict().items()}
    found = below(MODEL, tensors)
    check_tensors(file, {release_name(name): shape for name, shape in ours.items()}, found)
    network = MotionVAE(config)
    network.load_state_dict({name: found[release_name(name)] for name in ours})
    return network.eval(), syncnet.with_weights(file, of_expert, below(EXPERT, tensors))


def convert(file: Path, config: Config, of_expert: ExpertConfig, folder: Path) -> None:
    """Writes the file's networks as a checkpoint folder, the expert's in it. Raises NotTheRelease."""
    network, expert = read_official(file, config, of_expert)
    told = (
        "It hears HuBERT-large, and what it makes are the landmarks of a morphable model (BFM), displacements from that model's\n"
        "mean face, and not MediaPipe's: it moves no face that this laboratory's stages have measured. Use it under the terms\n"
        "of that release. The faces it generates are like those of the people it was trained on: use it only as they would\n"
        "agree to.\n"
    )
    with TemporaryDirectory() as made:
        card = f"# syncnet\n\nThe expert inside the authors' {file.name}, of their generator of motion.\n\n{told}"
        write_checkpoint(Path(made) / SYNCNET, expert, of_expert, card)
        card = f"# motion\n\nThe authors' weights, converted from {file.name}.\n\n{told}"
        write_checkpoint(folder, network, config, card, {SYNCNET: Path(made) / SYNCNET})


if __name__ == "__main__":
    source, preset, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {}), EXPERTS["lrs3"], Path(target))
