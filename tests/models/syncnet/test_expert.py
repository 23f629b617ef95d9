import math

import numpy as np
import pytest
import torch

from models.checkpoint import BadCheckpoint, write_checkpoint
from models.landmarks import MOUTH, VALUES
from models.syncnet.expert import confidence, load, sync_loss
from tests.models.syncnet.corpus import CONFIG, WIDTH, randomised


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expert") / "checkpoint"
    write_checkpoint(folder, randomised(CONFIG).train(), CONFIG, "# made\n")
    return load(folder)


def batch(lengths, frames=None):
    """Speech, motion and mask; beyond each length there are other values, which no loss may see."""
    frames = frames or max(lengths)
    torch.manual_seed(1)
    mask = torch.arange(frames) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), 2 * frames, WIDTH), torch.randn(len(lengths), frames, VALUES), mask


def losses(network, speech, motion):
    """−log cosine of every stretch of one utterance, one after the other."""
    with torch.inference_mode():
        return [
            -math.log(network(speech[None, 2 * first : 2 * first + 10], motion[None, first : first + 5, MOUTH]).item())
            for first in range(len(motion) - 4)
        ]


def test_a_loaded_expert_is_frozen_and_in_evaluation(network):
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_a_checkpoint_of_nothing_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"config.json does not exist"):
        load(tmp_path)


def test_the_loss_of_a_batch_s_only_stretches(network):
    speech, motion, mask = batch([5, 5, 4], frames=9)
    expected = [losses(network, speech[index, :10], motion[index, :5])[0] for index in (0, 1)]
    loss = sync_loss(network, speech, motion, mask, 10, None)
    assert loss.shape == () and loss.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_over_many_stretches_the_loss_is_the_mean_of_all(network):
    speech, motion, mask = batch([14])
    loss = sync_loss(network, speech, motion, mask, 5000, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(np.mean(losses(network, speech[0], motion[0])), rel=0.04)


@pytest.mark.parametrize(("clips", "seen"), [(1, 3), (3, 3), (4, 6), (1000, 1002)])
def test_at_least_so_many_stretches_of_each_utterance_as_many(network, clips, seen):
    counts = []
    hook = network.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    sync_loss(network, *batch([9, 6, 20, 3]), clips, None)
    hook.remove()
    assert counts == [seen]


def test_the_generator_decides(network):
    given = batch([30, 30])
    first, again, other = (sync_loss(network, *given, 4, torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_only_real_mouths_have_gradients(network, kind):
    speech, motion, mask = batch([9, 6], frames=12)
    motion.requires_grad_()
    sync_loss(network, speech, motion, mask.to(kind), 500, None).backward()
    reached = motion.grad.abs()
    assert reached[..., MOUTH].amax(-1)[mask].min() > 0
    assert not reached[~mask].any() and not reached[..., : MOUTH.start].any()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_cannot_be_judged_is_explained(network):
    speech, motion, mask = batch([9, 9])
    with pytest.raises(ValueError, match="no utterance of the batch has 5 real frames in a row"):
        sync_loss(network, speech, motion, mask & (torch.arange(9) % 4 > 0), 10, None)
    with pytest.raises(ValueError, match="16 rows of sound are not two for each of 9 frames"):
        sync_loss(network, speech[:, :16], motion, mask, 10, None)
    with pytest.raises(ValueError, match="sees 5 frames at once, and there are 4"):
        confidence(network, speech[0, :8], motion[0, :4])


def test_confidence_is_the_mean_cosine(network):
    speech, motion, _ = batch([14])
    expected = np.mean([math.exp(-loss) for loss in losses(network, speech[0], motion[0])])
    assert confidence(network, speech[0].numpy(), motion[0].numpy()) == pytest.approx(expected, rel=1e-4)
    motion.requires_grad_()
    assert confidence(network, speech[0], motion[0]) == pytest.approx(expected, rel=1e-4)
