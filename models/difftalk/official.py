"""`python -m models.difftalk.official FILE PRESET FOLDER`: a checkpoint of the authors' training into one of ours.

    FILE     <epoch>.ckpt, as the release's code writes it: the authors published its first stage alone, see
             models/autoencoder/official.py     PRESET   release     FOLDER   of the checkpoint to write

Of the U-Net the averaged copy is taken, with which the release samples; where the file has none, the other one.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from models.autoencoder import official as first_stage
from models.autoencoder.config import PRESETS as AUTOENCODERS
from models.autoencoder.config import Config as AutoencoderConfig
from models.autoencoder.network import Autoencoder
from models.checkpoint import write_checkpoint
from models.difftalk.config import Config
from models.difftalk.examples import AUTOENCODER
from models.difftalk.network import DiffTalkUNet
from models.released import NotTheRelease, check_tensors, unet_blocks

UNET, AVERAGED, FIRST_STAGE = "model.diffusion_model.", "model_ema.", "first_stage_model."
COUNTERS = {f"{AVERAGED}decay", f"{AVERAGED}num_updates"}
GAMMAS = "alphas_cumprod"
DERIVED = {  # tables of the noise schedule
    "betas",
    GAMMAS,
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
}

# Within a residual block, our names to the release's. What has no other name has the same in both, as all of the attention has.
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def block_names(config: Config) -> dict[str, str]:
    """Our name of each block, and the release's, which numbers those of the U-Net from the latents down and up again."""
    names = {
        "audio_encoder.convolutions": "cond_stage_model_for_audio.encoder_conv",
        "audio_encoder.linear": "cond_stage_model_for_audio.encoder_fc1",
        "audio_attention.convolutions": "cond_stage_model_for_audio_smooth.attentionConvNet",
        "audio_attention.linear": "cond_stage_model_for_audio_smooth.attentionNet.0",
        "landmark_encoder": "cond_stage_model_for_ldm.encoder_fc1",
        "unet.time_embedding.linear_1": f"{UNET}time_embed.0",
        "unet.time_embedding.linear_2": f"{UNET}time_embed.2",
    }
    for ours, theirs in unet_blocks(len(config.channels), config.res_blocks, config.attention_levels).items():
        if "downsamplers" in ours:  # one convolution, and no residual block
            ours, theirs = f"{ours}.conv", f"{theirs}.op"
        names[f"unet.{ours}"] = UNET + theirs
    return names


def release_name(name: str, blocks: dict[str, str]) -> str:
    """What the release calls one of our tensors."""
    block = next(block for block in blocks if name.startswith(f"{block}."))
    inner, _, kind = name.removeprefix(f"{block}.").rpartition(".")
    inner = RESIDUAL.get(inner, inner)
    return ".".join(part for part in (blocks[block], inner, kind) if part)


def averaged_name(name: str) -> str:
    """Of the averaged copy of one of the release's tensors."""
    return AVERAGED + name.removeprefix("model.").replace(".", "") if name.startswith(UNET) else name


def read_official(file: Path, config: Config, below: AutoencoderConfig) -> tuple[DiffTalkUNet, Autoencoder]:
    """The two networks with the file's weights, every tensor accounted for. Raises NotTheRelease, with all differences."""
    state = first_stage.read_state(file)
    network, autoencoder = DiffTalkUNet(config), Autoencoder(below)
    blocks, ours = block_names(config), network.state_dict()
    names = {name: release_name(name, blocks) for name in ours}
    expected = {names[name]: tuple(tensor.shape) for name, tensor in ours.items()}
    if any(name.startswith(AVERAGED) for name in state):
        names = {name: averaged_name(theirs) for name, theirs in names.items()}
        expected |= {names[name]: tuple(tensor.shape) for name, tensor in ours.items()}
    expected |= {FIRST_STAGE + name: shape for name, shape in first_stage.layout(autoencoder).items()}
    check_tensors(file, expected, {name: tensor for name, tensor in state.items() if name not in DERIVED | COUNTERS})
    check_schedule(file, config, state)
    network.load_state_dict({name: state[theirs] for name, theirs in names.items()})
    first_stage.take(autoencoder, {name: state[FIRST_STAGE + name] for name in first_stage.layout(autoencoder)})
    return network.eval(), autoencoder.eval()


def check_schedule(file: Path, config: Config, state: dict[str, Tensor]) -> None:
    """Raises NotTheRelease if the file's noise schedule, should it tell, is not that of the configuration."""
    gammas = config.noise_schedule.alphas_cumprod(config.train_timesteps)
    found = state.get(GAMMAS, gammas)
    if found.shape != gammas.shape or not torch.allclose(found.double(), gammas, rtol=1e-4):
        raise NotTheRelease(
            f"{file} was trained with another noise schedule, of {found.numel()} steps: its {GAMMAS} are not those of the "
            f"configuration, of {len(gammas)} steps"
        )


def convert(file: Path, config: Config, below: AutoencoderConfig, folder: Path) -> None:
    """Writes the file's networks as a checkpoint folder, the autoencoder's in it. Raises NotTheRelease."""
    network, autoencoder = read_official(file, config, below)
    card = (
        f"# difftalk\n\nA checkpoint of the authors' training, converted from {file.name}.\n\n"
        "The release samples with `ddim`, 200 steps, and hears the letters that DeepSpeech hears, 29 numbers in a row.\n\n"
        "Use it under the terms of that release. The faces it generates are those of the people it was trained on: use it only\n"
        "as they would agree to.\n"
    )
    with TemporaryDirectory() as made:
        write_checkpoint(Path(made) / AUTOENCODER, autoencoder, below, first_stage.card(file))
        write_checkpoint(folder, network, config, card, {AUTOENCODER: Path(made) / AUTOENCODER})


if __name__ == "__main__":
    source, preset, target = sys.argv[1:]
    convert(Path(source), Config.from_dict(preset, {}), AUTOENCODERS["paper_256"], Path(target))
