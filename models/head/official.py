"""`python -m models.head.official FILE PRESET FOLDER`: the authors' head of one person into one of ours.

FILE     model_ckpt_steps_<N>.ckpt of their training of it     PRESET   may for the release v1.1, may_mlp for the paper's form
FOLDER   of the checkpoint to write

Its motion is that of a morphable model (BFM), normalised by the person's mean and deviation, which the file does not hold: what
is written takes motion that is normalised already (mean 0, deviation 1).
"""

import re
import sys
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import write_checkpoint
from models.head.config import Config, Form
from models.head.network import GridHead, Head, build
from models.released import NotTheRelease, check_tensors, read_model

MODEL = "model"  # the head, among what the release trains
PERSON = {"mean_X", "std_X"}  # not in the file
DERIVED = {"aabb_train", "aabb_infer", "position_embedder.offsets", "ambient_embedder.offsets"}  # from the configuration

# Our names to the release's, each rule on what the one before it left. Linear layers without biases are numbered with the ReLUs
# between them here, and without them there.
WINDOWS = (
    (r"^window_encoder\.convolutions\.", "{encoder}.encoder_conv."),
    (r"^window_encoder\.linear\.", "{encoder}.encoder_fc1."),
    (r"^window_attention\.convolutions\.", "{attention}.attentionConvNet."),
    (r"^window_attention\.linear\.", "{attention}.attentionNet.0."),
)
MLP = (
    *((ours, theirs.format(encoder="lm_encoder", attention="lmatt_encoder")) for ours, theirs in WINDOWS),
    (r"^(coarse|fine)\.", r"model_\1."),
    (r"\.density_layers\.", ".density_linears."),
    (r"\.density_out\.", ".density_out_linear."),
    (r"\.color_layers\.", ".color_linears."),
    (r"\.color_out\.", ".color_out_linear."),
)
GRID = (
    *((ours, theirs.format(encoder="cond_prenet", attention="cond_att_net")) for ours, theirs in WINDOWS),
    (r"^(position|ambient)_grid\.", r"\1_embedder."),
    (r"^density_net\.", "sigma_net."),
    (r"^(\w+_net)\.0\.weight$", r"\1.net.0.weight"),
    (r"^(\w+_net)\.2\.weight$", r"\1.net.1.weight"),
    (r"^(\w+_net)\.4\.weight$", r"\1.net.2.weight"),
    (r"^frame_codes$", "individual_embeddings"),
)


def release_name(name: str, form: Form) -> str:
    """What the release calls one of our tensors."""
    for ours, theirs in MLP if form == "mlp" else GRID:
        name = re.sub(ours, theirs, name)
    return name


def layout(head: Head) -> dict[str, str]:
    """Our tensors that are in the release's file as they are, by name, and their names there."""
    mine = PERSON | {f"occupancy.{name}" for name in ("density", "occupied", "extent")}
    return {name: release_name(name, head.config.form) for name in head.state_dict() if name not in mine}


def grid_buffers(head: GridHead) -> dict[str, Tensor]:
    """What the release's file of the grid form holds besides; of those of the first line, the numbers are not known."""
    cells = head.config.cells**3
    found = {
        "density_grid": torch.empty(1, cells),
        "density_bitfield": torch.empty(cells // 8),
        "step_counter": torch.empty(16, 2),
    }
    found |= {name: torch.tensor(head.occupancy.scene.box) for name in ("aabb_train", "aabb_infer")}
    for name, grid in (("position", head.position_grid), ("ambient", head.ambient_grid)):
        found[f"{name}_embedder.offsets"] = torch.tensor([0, *accumulate(grid.rows)])
    return found


def read_official(file: Path, config: Config) -> Head:
    """The head with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    found = read_model(file)
    head = build(config)
    ours, names = head.state_dict(), layout(head)
    buffers = grid_buffers(head) if isinstance(head, GridHead) else {}
    expected = {theirs: tuple(ours[name].shape) for name, theirs in names.items()}
    check_tensors(file, expected | {name: tuple(tensor.shape) for name, tensor in buffers.items()}, found)
    if buffers and found["density_bitfield"].dtype != torch.uint8:
        raise NotTheRelease(f"{file} has density_bitfield of {found['density_bitfield'].dtype}, not of bytes")
    for name in DERIVED & buffers.keys():
        if not torch.equal(found[name].double(), buffers[name].double()):
            raise NotTheRelease(
                f"{file} has {name} {found[name].tolist()}, not {buffers[name].tolist()} as the configuration says"
            )
    head.load_state_dict({name: found[theirs] for name, theirs in names.items()}, strict=False)
    if isinstance(head, GridHead):
        head.occupancy.take_release(found["density_grid"], found["density_bitfield"])
    return head.eval()


def convert(file: Path, config: Config, folder: Path) -> None:
    """Writes the file's head as a checkpoint folder. Raises NotTheRelease."""
    card = (
        f"# head\n\nA checkpoint of the authors' training, converted from {file.name}.\n\n"
        "Its motion is that of a morphable model (BFM), not of MediaPipe's landmarks, and is to be given normalised: the file\n"
        "does not hold the person's mean and deviation. Use it under the terms of that release. The face that it paints is that\n"
        "of the person it was trained on: use it only as they would agree to.\n"
    )
    write_checkpoint(folder, read_official(file, config), config, card)


if __name__ == "__main__":
    source, preset, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {}), Path(target))
