"""The objective (release), how weights are judged, and the optimisation with Lightning.

B  batch     T  frames     X  204 numbers of a frame: 68 points x 3, centimetres     N  frames of a batch     Z, t  latents
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR

from models.checkpoint import write_checkpoint
from models.given import Given
from models.landmarks import MOUTH
from models.learning_rate import Decay, warm_cosine, warm_exponential
from models.motion import generate as motion_generate
from models.motion.config import SYNCNET
from models.motion.examples import Batch
from models.motion.network import STRIDE, MotionVAE
from models.postnet.config import Config
from models.postnet.examples import MOTION, Step, beside, person_motion
from models.postnet.network import FrameDiscriminator, PostNet
from models.syncnet import expert
from models.syncnet.network import SyncNet

FROZEN = ("motion.", "syncnet.")  # networks below, of which the resume state holds nothing
HALF = 40_000  # steps in which the discriminator's learning rate falls to that
MILLIMETRES = 10.0  # in a centimetre
DRAWS = 4  # of the generator's noise, by which each held-out utterance is judged


def build(config: Config, given: Given) -> "DomainAdaptation":
    """What `models.trainer` trains, on top of the generator of motion and of its sync expert. Raises BadCheckpoint."""
    below = beside(given, MOTION)
    remembered_NX = torch.from_numpy(person_motion(given))
    network = PostNet(replace(config, frames=len(remembered_NX)))
    network.remember(remembered_NX)
    return DomainAdaptation(network, motion_generate.load(below), expert.load(below / SYNCNET), below)


def drawn_motion(motion: MotionVAE, speech_BSD: Tensor, mask_BT: Tensor, temperature: float, seed: int | None) -> Tensor:
    """What the generator says of the sound, (B, T, X); seed: of its noise, or None for torch's own."""
    device = speech_BSD.device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    shape = len(speech_BSD), motion.config.latent_channels, mask_BT.shape[1] // STRIDE
    noise_BZt = temperature * torch.randn(shape, generator=generator, device=device)
    with torch.no_grad():
        return motion.sample(noise_BZt, speech_BSD, mask_BT)


def squared_error(made_BTX: Tensor, real_BTX: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over all numbers of the frames that are there, in square centimetres."""
    return (made_BTX - real_BTX)[mask_BT].square().mean()


class Measures(NamedTuple):
    """Of motion made of the sound of the person's held-out utterances, by which weights are chosen."""

    distance_mm: float  # mean of the landmarks, from the true ones
    confidence: float  # of the sync expert, 0 to 1
    movement: float  # of the mouth: its standard deviation over time, as a share of the true one's
    answer: float  # likewise: how far the mouth of another sound is, with the same noise; about 1 where it is all the sound's

    @property
    def score(self) -> float:
        """The lower, the better: the distance, by how little the expert believes in it."""
        return self.distance_mm * (1 - self.confidence)

    def collapsed(self, share: float) -> bool:
        """Whether the mouth stands still, or moves the same whatever the sound."""
        return min(self.movement, self.answer) < share

    @classmethod
    def of(cls, sums_6: Tensor) -> "Measures":
        """Of what `DomainAdaptation.sums_of` says of each utterance, added up."""
        frames, distance, confidence, made, real, other = sums_6.double().tolist()
        real = max(real, 1e-12)
        return cls(distance / frames, confidence / frames, math.sqrt(made / real), math.sqrt(other / (2 * real)))


class DomainAdaptation(LightningModule):
    """Trains `network`, and `discriminator` against it; keeps the weights that were best on the held-out utterances.

    Both have one optimiser, of two groups: each loss reaches the weights of its own network alone, so that is as good as two.
    The release has the best weights chosen by eye: here they are those of the lowest score, but of weights that have collapsed
    only while there are no others.
    """

    def __init__(self, network: PostNet, motion: MotionVAE, syncnet: SyncNet, below: Path):
        super().__init__()
        self.config, self.network, self.below = network.config, network, below
        self.discriminator = FrameDiscriminator(network.config)
        self.motion, self.syncnet = motion, syncnet
        self.best = copy.deepcopy(network).requires_grad_(False)
        self.best_step: Tensor
        self.best_measures: Tensor
        self.register_buffer("best_step", torch.zeros((), dtype=torch.long))
        self.register_buffer("best_measures", torch.full((len(Measures._fields),), math.nan))  # before the first validation
        self.sums: list[Tensor] = []  # of the utterances of a validation under way

    def train(self, mode: bool = True) -> "DomainAdaptation":
        """The networks below stay as they are."""
        super().train(mode)
        self.motion.eval()
        self.syncnet.eval()
        return self

    def _made(self, batch: Batch, temperature: float, seed: int | None) -> Tensor:
        drawn_BTX = drawn_motion(self.motion, batch.speech, batch.mask, temperature, seed)
        return self.network(drawn_BTX, batch.mask)

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        config, (voices, person) = self.config, batch
        paired = squared_error(self._made(person, config.temperature, None), person.motion, person.mask)
        made_BTX = self._made(voices, config.temperature, None)
        made_NX = made_BTX[voices.mask]
        sync = expert.sync_loss(self.syncnet, voices.speech, made_BTX, voices.mask, config.sync_clips, None)
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        taken = (functional_call(self.discriminator, frozen, made_NX) - 1).square().mean()
        loss = config.adversarial_weight * taken + config.sync_weight * sync + config.paired_weight * paired

        of_made, of_real = self.discriminator(made_NX.detach()), self.discriminator(person.motion[person.mask])
        told = of_made.square().mean() + (of_real - 1).square().mean()
        losses = {"train_loss": loss, "adversarial": taken, "sync": sync, "paired": paired, "discriminator_loss": told}
        judged = {"made_is_real": of_made.mean(), "real_is_real": of_real.mean()}  # both about 0.5 when it cannot tell
        self.log_dict(losses | judged, batch_size=len(voices.mask))
        return loss + told

    def on_train_start(self) -> None:
        """A training that was killed once it had nothing more to hope for has nothing to go on with."""
        self.trainer.should_stop = self._hopeless()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.sums.append(self.sums_of(batch, batch_idx))

    def on_validation_epoch_end(self) -> None:
        """Of the utterances held out; keeps the weights if they are the best, and ends training if none are better for long."""
        measures = Measures.of(self.trainer.strategy.reduce(torch.stack(self.sums).sum(0), reduce_op="sum"))
        self.sums.clear()
        best = Measures(*self.best_measures.tolist())
        if math.isnan(best.score) or self._rank(measures) < self._rank(best):
            self.best.load_state_dict(self.network.state_dict())
            self.best_step.fill_(self.global_step)
            self.best_measures.copy_(torch.tensor(measures))
        self.trainer.should_stop = self._hopeless()
        collapse = float(measures.collapsed(self.config.collapse))
        self.log_dict({"val_loss": measures.score, "collapse": collapse} | measures._asdict())

    def sums_of(self, batch: Batch, index: int) -> Tensor:
        """(6,) of one utterance, for `Measures.of`; the same noise every time, so that the curve is smooth."""
        return torch.stack([self.sums_of_draw(batch, DRAWS * index + draw) for draw in range(DRAWS)]).sum(0)

    def sums_of_draw(self, batch: Batch, seed: int) -> Tensor:
        """The same of one of its draws."""
        frames = int(batch.mask.sum())
        speech_SD, real_TX = batch.speech[0, : 2 * frames], batch.motion[0, :frames]
        # Another sound, of the same voice and as likely: the same one, half a clip later.
        other_BSD = batch.speech.clone()
        other_BSD[0, : 2 * frames] = speech_SD.roll(2 * (frames // 2), 0)
        heard = batch, batch._replace(speech=other_BSD)
        made_TX, other_TX = (self._made(each, self.config.val_temperature, seed)[0, :frames] for each in heard)
        distance_T68 = (made_TX - real_TX).unflatten(1, (-1, 3)).norm(dim=-1)
        confidence = expert.confidence(self.syncnet, speech_SD, made_TX)
        made_TM, real_TM, other_TM = (moved_TX[:, MOUTH] for moved_TX in (made_TX, real_TX, other_TX))
        parts = (
            real_TX.new_tensor(frames),
            MILLIMETRES * distance_T68.mean(1).sum(),
            real_TX.new_tensor(frames * confidence),
            *((moved_TM - moved_TM.mean(0)).square().sum() for moved_TM in (made_TM, real_TM)),
            (made_TM - other_TM).square().sum(),
        )
        return torch.stack(parts)

    def _hopeless(self) -> bool:
        """Whether the last validations, as many as config.patience (0: any number), found no better weights."""
        config = self.config
        return config.patience > 0 and self.global_step - int(self.best_step) >= config.patience * config.val_every

    def _rank(self, measures: Measures) -> tuple[bool, float]:
        return measures.collapsed(self.config.collapse), measures.score

    def configure_optimizers(self) -> Any:
        config = self.config
        groups = [
            {"params": list(self.network.parameters()), "lr": config.learning_rate},
            {"params": list(self.discriminator.parameters()), "lr": config.discriminator_learning_rate},
        ]
        optimizer = RMSprop(groups)
        cosine = partial(warm_cosine, steps=config.steps)
        shares: dict[Decay, Callable[[int], float]] = {"none": constant, "cosine": cosine, "exponential": warm_exponential}
        schedule = LambdaLR(optimizer, [shares[config.learning_rate_decay], halved])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Each network by itself: the discriminator's gradient must not shorten PostNet's."""
        if gradient_clip_val:
            for group in optimizer.param_groups:
                clip_grad_norm_(group["params"], gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if not name.startswith(FROZEN)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        frozen = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(FROZEN)}
        checkpoint["state_dict"] = checkpoint["state_dict"] | frozen

    def save(self, folder: Path, card: str) -> None:
        """Writes the best weights, and the generator below them, as a checkpoint that `generate.load` reads."""
        best = Measures(*self.best_measures.tolist())
        network = self.network if math.isnan(best.score) else self.best
        write_checkpoint(folder, network, self.config, card + self._told(best), {MOTION: self.below})

    def _told(self, best: Measures) -> str:
        """Of the weights that are saved, for the card."""
        if math.isnan(best.score):
            return "\nNo validation has judged these weights.\n"
        told = "".join(f"- {name}: {value:.3g}\n" for name, value in best._asdict().items())
        collapsed = (
            "\n**Collapsed**: at every validation the mouth stood still, or moved the same whatever the sound. Train anew with\n"
            "less weight of the discriminator, a lower learning rate, or more of the person's film.\n"
        )
        return (
            f"\nThe weights are those of step {int(self.best_step)}, which did best on the held-out utterances:\n\n{told}"
            f"{collapsed if best.collapsed(self.config.collapse) else ''}"
        )


def halved(step: int) -> float:
    """Share of the discriminator's learning rate."""
    return 0.5 ** (step // HALF)


def constant(step: int) -> float:
    return 1.0
