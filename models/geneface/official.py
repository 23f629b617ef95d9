"""`python -m models.geneface.official FILE PRESET FOLDER POSTNET BACKGROUND [TRANSFORMS]`: the authors' torso, and the head that
it belongs to, into a checkpoint of ours.

FILE        model_ckpt_steps_<N>.ckpt of their training of the torso     PRESET   may for the release v1.1, its head-aware variant
            too; may_mlp for the paper's form
FOLDER      of the checkpoint to write
POSTNET     checkpoint of the same person, as models/postnet/official.py writes it
BACKGROUND  picture of what is behind the person, as large as the film: the file does not hold it
TRANSFORMS  transforms_train.json of the person, for the paper's form: its torso is in the space of that film's first camera

What models/head/official.py says of motion holds here too: the file has neither the mean nor the deviation of the person's.
"""

import json
import re
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.checkpoint import write_checkpoint
from models.geneface.config import Config, Form
from models.geneface.examples import HEAD, POSTNET
from models.geneface.network import GridTorso, Torso, build
from models.head import official as head
from models.head.config import PRESETS as HEADS
from models.head.config import Config as HeadConfig
from models.postnet import generate as postnet
from models.released import NotTheRelease, below, check_tensors, read_tasks

MODEL, HEAD_MODEL = "model.", "head_model."  # networks of the file; the grid form has torso and head in the first
OF_TORSO = re.compile(r"model\.(torso_|density_grid_torso$|head_color_weights_encoder\.)")  # in the grid form
HEAD_AWARE = "head_color_weights_encoder.0.weight"  # is in the variant's files alone
OFFSETS, OCCUPANCY = "torso_embedder.offsets", "density_grid_torso"
# Not in the file, which has poses as they are, and generates with its first frame's code.
PERSON = {"background", "first_pose", "stand_in", "pose_mean", "pose_whitening"}

# Our names to the release's, each rule on what the one before it left.
GRID = (
    (r"^frames$", "torso_individual_codes"),
    (r"^grid\.", "torso_embedder."),
    (r"^head_encoder\.", "head_color_weights_encoder."),
    (r"^deform\.", "torso_deform_net."),
    (r"^paint\.", "torso_canonicial_net."),
    *((rf"_net\.{2 * layer}\.weight$", f"_net.net.{layer}.weight") for layer in range(3)),
)
MLP = (
    *((ours, theirs.format(encoder="aud_net", attention="audatt_net")) for ours, theirs in head.WINDOWS),
    *head.MLP,
)


def release_name(name: str, form: Form) -> str:
    """What the release calls one of our tensors."""
    for ours, theirs in MLP if form == "mlp" else GRID:
        name = re.sub(ours, theirs, name)
    return name


def layout(torso: Torso) -> dict[str, str]:
    """Our tensors that are in the release's file as they are, by name, and their names there."""
    return {name: release_name(name, torso.config.form) for name in torso.state_dict() if name not in PERSON}


def grid_buffers(torso: GridTorso, cells: int) -> dict[str, Tensor]:
    """What the release's file of the grid form holds besides. cells: of a side of the grid that tells where the torso may be.

    Of that grid the numbers are not known, nor needed: see GridTorso.
    """
    return {OFFSETS: torch.tensor([0, *accumulate(torso.grid.rows)]), OCCUPANCY: torch.empty(cells**2)}


def parted(file: Path, form: Form) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The file's tensors: the head's, by the names that they have in a file of its own, and the others. Raises NotTheRelease."""
    of_head, others = {}, {}
    for name, tensor in read_tasks(file).items():
        if name.startswith(HEAD_MODEL) if form == "mlp" else name.startswith(MODEL) and not OF_TORSO.match(name):
            of_head[name] = tensor
        else:
            others[name] = tensor
    return below(HEAD_MODEL if form == "mlp" else MODEL, of_head), others


def read_official(file: Path, config: Config, cells: int) -> Torso:
    """The torso with the file's weights, every tensor accounted for but the head's. Raises NotTheRelease, with all differences.

    Whether it is aware of the head, the file tells. cells: as of `grid_buffers`.
    """
    _, state = parted(file, config.form)
    torso = build(replace(config, head_aware=MODEL + HEAD_AWARE in state))
    ours, names = torso.state_dict(), layout(torso)
    buffers = grid_buffers(torso, cells) if isinstance(torso, GridTorso) else {}
    expected = {theirs: tuple(ours[name].shape) for name, theirs in names.items()}
    expected |= {name: tuple(tensor.shape) for name, tensor in buffers.items()}
    check_tensors(file, {MODEL + name: shape for name, shape in expected.items()}, state)
    if buffers and not torch.equal(state[MODEL + OFFSETS].long(), buffers[OFFSETS]):
        rows = f"{state[MODEL + OFFSETS].tolist()}, not {buffers[OFFSETS].tolist()}"
        raise NotTheRelease(f"{file} has {MODEL + OFFSETS} {rows} as the configuration says")
    torso.load_state_dict(ours | {name: state[MODEL + theirs] for name, theirs in names.items()})
    return torso.eval()


def background_of(file: Path, size: int) -> Tensor:
    """(S, S, 3) uint8, of a picture. Raises NotTheRelease if it is none, or not as large."""
    try:
        with Image.open(file) as picture:
            if picture.size != (size, size):
                raise NotTheRelease(f"{file} has {picture.size[0]} x {picture.size[1]} pixels, not {size} x {size} as the film")
            return torch.from_numpy(np.array(picture.convert("RGB")))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # the second of a broken PNG
        raise NotTheRelease(f"{file} is no picture: {error}") from error


def first_pose_of(file: Path) -> Tensor:
    """(4, 4) camera from head, of the first frame of a transforms_train.json. Raises NotTheRelease.

    There it is the head from a camera whose y is up and whose z looks back; its metres are ours.
    """
    try:
        camera = np.array(json.loads(file.read_bytes())["frames"][0]["transform_matrix"], np.float64)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise NotTheRelease(f"{file} has no frames, each with a transform_matrix of 4 x 4 numbers") from error
    turned = camera[:3, :3] if camera.shape == (4, 4) else np.zeros((3, 3))
    if not (np.isfinite(camera).all() and np.allclose(turned @ turned.T, np.eye(3), atol=1e-3) and np.linalg.det(turned) > 0):
        raise NotTheRelease(f"{file} has a transform_matrix that does not turn and move alone")
    pose_44 = np.eye(4)
    pose_44[:3, :3] = np.diag([1, -1, -1]) @ turned.T
    pose_44[:3, 3] = -pose_44[:3, :3] @ camera[:3, 3]
    return torch.from_numpy(pose_44.astype(np.float32))


def convert(
    file: Path, config: Config, of_head: HeadConfig, of_postnet: Path, background: Path, transforms: Path | None, folder: Path
) -> None:
    """Writes the file's torso as a checkpoint folder, the head and PostNet in it. Raises NotTheRelease and BadCheckpoint."""
    if (transforms is None) == (config.form == "mlp"):
        raise ValueError("transforms_train.json is for the paper's form, which needs it, and for no other")
    postnet.load(of_postnet)
    torso = read_official(file, config, of_head.cells)
    torso.background.copy_(background_of(background, config.image_size))
    if transforms is not None:
        torso.first_pose.copy_(first_pose_of(transforms))
    card = (
        f"# geneface\n\nThe authors' torso and head of one person, converted from {file.name}.\n\n"
        "The head's motion is that of a morphable model (BFM), not of MediaPipe's landmarks, and is to be given normalised: the\n"
        "file does not hold the person's mean and deviation. Use it under the terms of that release, and only as the person\n"
        "would agree to.\n"
    )
    with TemporaryDirectory() as made:
        # As the head's own training would have written it, for its own converter.
        alone = Path(made) / file.name
        torch.save({"state_dict": {"model": parted(file, config.form)[0]}}, alone)
        head.convert(alone, of_head, Path(made) / HEAD)
        write_checkpoint(folder, torso, torso.config, card, {HEAD: Path(made) / HEAD, POSTNET: of_postnet})


if __name__ == "__main__":
    source, preset, target, voice, behind = sys.argv[1:6]
    film = Path(sys.argv[6]) if len(sys.argv) > 6 else None
    convert(Path(source), Config.from_dict(preset, {}), HEADS[preset], Path(voice), Path(behind), film, Path(target))
