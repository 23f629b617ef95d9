"""`python -m models.postnet.official FILE PRESET FOLDER`: the authors' PostNet of a person into a checkpoint of ours.

    FILE     model_ckpt_steps_<N>.ckpt of `lm3d_postnet_sync`     PRESET   may     FOLDER   of the checkpoint to write

The generator of motion that it was trained on is in the file, frozen, and is taken too, with its sync expert; a second copy of
that is left out. The file holds nothing of how the person moved, so guards that know the person are off in what is written.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from models.checkpoint import write_checkpoint
from models.motion import official as motion
from models.motion.config import PRESETS as GENERATORS
from models.motion.config import Config as MotionConfig
from models.postnet.config import Config
from models.postnet.examples import MOTION
from models.postnet.network import FrameDiscriminator, PostNet
from models.released import NotTheRelease, below, check_tensors, read_tasks
from models.syncnet.config import PRESETS as EXPERTS
from models.syncnet.config import Config as ExpertConfig

MODEL, DISCRIMINATOR = "model.", "disc_model."  # the networks of the file that were trained
GENERATOR, EXPERT = "audio2motion_task.", "syncnet_task."  # and those that were not
REMEMBERED = {"motion_NX", "mean_X", "std_X"}  # ours alone

# Our names to the release's, each rule on what the one before it left.
NAMES = (
    (r"^block3\.", "block3.0."),
    (r"^last\.", "block3.1."),
    (r"\.convolution\.", ".conv_block.0."),
    (r"\.norm\.", ".conv_block.1."),
    (r"^(\d+)\.", r"backbone.\1."),  # of the discriminator
)


def release_name(name: str) -> str:
    """What the release calls one of our tensors, of either network."""
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def layout(network: nn.Module) -> dict[str, str]:
    """Our names of a network's tensors to the release's."""
    return {name: release_name(name) for name in network.state_dict() if name not in REMEMBERED}


def read_official(file: Path, config: Config) -> tuple[PostNet, FrameDiscriminator]:
    """The two networks with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    network, discriminator = PostNet(config), FrameDiscriminator(config)
    trained: dict[str, nn.Module] = {MODEL: network, DISCRIMINATOR: discriminator}
    state = {name: tensor for name, tensor in read_tasks(file).items() if not name.startswith((GENERATOR, EXPERT))}
    if "pitch_embed.weight" in state:
        raise NotTheRelease(f"{file} is of the variant that hears pitch too: take `lm3d_postnet_sync` without it")
    expected = {
        prefix + theirs: tuple(module.state_dict()[ours].shape)
        for prefix, module in trained.items()
        for ours, theirs in layout(module).items()
    }
    check_tensors(file, expected, state)
    for prefix, module in trained.items():
        found = {ours: state[prefix + theirs] for ours, theirs in layout(module).items()}
        module.load_state_dict(module.state_dict() | found)
    return network.eval(), discriminator.eval()


def convert(file: Path, config: Config, of_generator: MotionConfig, of_expert: ExpertConfig, folder: Path) -> None:
    """Writes the file's network as a checkpoint folder, the generator's in it. Raises NotTheRelease."""
    unguarded = replace(config, frames=0, lle_share=0.0, clamp_std=0.0, upper_share=1.0, blink="none")
    network, _ = read_official(file, unguarded)
    card = (
        f"# postnet\n\nThe authors' weights for one person, converted from {file.name}.\n\n"
        "It hears HuBERT-large, and moves the landmarks of a morphable model (BFM), not MediaPipe's. Use it under the terms of\n"
        "that release, and only as the person would agree to.\n"
    )
    with TemporaryDirectory() as made:
        # As the generator's own training would have written it, for its own converter.
        generator = Path(made) / file.name
        torch.save({"state_dict": below(GENERATOR, read_tasks(file))}, generator)
        motion.convert(generator, of_generator, of_expert, Path(made) / MOTION)
        write_checkpoint(folder, network, unguarded, card, {MOTION: Path(made) / MOTION})


if __name__ == "__main__":
    source, preset, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {}), GENERATORS["lrs3"], EXPERTS["lrs3"], Path(target))
