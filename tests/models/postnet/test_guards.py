"""Each rail against a closed form, or against its definition written out slowly."""

import numpy as np
import pytest
import torch

from models.landmarks import CANONICAL_P3, EYES, VALUES
from models.postnet.guards import (
    Guards,
    blink,
    clamp,
    closed_eyes,
    eye_opening,
    guarded,
    lle,
    lle_weights,
    quieten,
    smooth,
    widths,
)

ALL = slice(0, VALUES)
OFF = Guards(lle_share=0.0, lle_neighbours=10, clamp_std=0.0, upper_share=1.0, smoothing=0.0, blink="none")


@pytest.fixture
def person():
    """(N, X), along a smooth path of a few dimensions, as faces are."""
    random = np.random.default_rng(0)
    path = np.stack([np.sin(np.arange(300) / period) for period in (3, 7, 11, 17)], axis=1)
    moved = path @ random.normal(0, 0.2, (4, VALUES)) + random.normal(0, 0.002, (300, VALUES))
    return torch.from_numpy(moved.astype(np.float32))


def queries(person, count=20):
    return person[10 : 10 + count] + 0.05 * torch.from_numpy(np.random.default_rng(1).normal(size=(count, VALUES))).float()


def test_equal_neighbours_are_as_good_as_one(person):
    """The release's normal equations are singular there."""
    one = person[:1]
    made = lle(queries(person), one.repeat(12, 1), 10, 1.0, ALL)
    assert torch.allclose(made, one.expand_as(made), atol=1e-6)
    doubled = lle(queries(person), person.repeat(3, 1), 9, 1.0, ALL)  # each of three neighbours, three times
    assert torch.allclose(doubled, lle(queries(person), person, 3, 1.0, ALL), atol=1e-5)


def test_a_frame_of_the_person_s_is_itself(person):
    assert torch.allclose(lle(person[40:60], person, 10, 1.0, ALL), person[40:60], atol=1e-5)


def test_weights_sum_to_one_and_mix_the_best(person):
    asked, near = queries(person).double(), person[:10].double()[None].repeat(20, 1, 1)
    weights = lle_weights(asked, near)
    assert torch.allclose(weights.sum(1), torch.ones(20, dtype=torch.double), atol=1e-9)
    residual = asked - (weights[..., None] * near).sum(1)
    across = near - near.mean(1, keepdim=True)  # the best is where nothing along the neighbours' plane is left
    assert (across @ residual[..., None]).abs().max() < 1e-9


@pytest.mark.parametrize("columns", [ALL, slice(0, 3 * 48)])
def test_the_projection_is_that_of_its_definition(person, columns):
    asked = queries(person)
    made = lle(asked, person, 10, 0.25, columns)
    for query, ours in zip(asked.double().numpy(), made.double().numpy(), strict=True):
        known = person.double().numpy()[:, columns]
        near = known[np.argsort(np.linalg.norm(known - query[columns], axis=1))[:10]]
        system = np.vstack((near.T, 1e6 * np.ones(10)))  # the weights' sum as one more equation, which counts for all
        weights = np.linalg.lstsq(system, np.append(query[columns], 1e6), rcond=None)[0]
        expected = query.copy()
        expected[columns] += 0.25 * (weights @ near - query[columns])
        assert np.abs(ours - expected).max() < 1e-4


def test_few_frames_of_the_person_are_all_neighbours(person):
    made = lle(queries(person), person[:3], 10, 1.0, ALL)
    assert torch.isfinite(made).all()


def test_widths_are_the_release_s():
    table = widths(3.0).reshape(68, 3)
    for point in range(68):
        across, up, out = table[point].tolist()
        narrow = 17 <= point < 27 or 36 <= point < 48  # brows and eyes
        assert across == up == (1.5 if narrow else 3.0) and out == 3.0, point


def test_clamp_bounds_what_is_far_and_nothing_else(person):
    mean, std = person.mean(0), person.std(0, correction=0)
    wild = mean + std * torch.linspace(-9, 9, 7)[:, None]
    bounded = (clamp(wild, mean, std, widths(2.5)) - mean) / std
    assert torch.allclose(bounded[0], -widths(2.5), atol=1e-4) and torch.allclose(bounded[-1], widths(2.5), atol=1e-4)
    calm = mean + std * torch.linspace(-1, 1, 7)[:, None]
    assert torch.equal(clamp(calm, mean, std, widths(2.5)), calm)


def test_brows_nose_and_eyes_are_quietened_and_nothing_else(person):
    motion, mean = queries(person), person.mean(0)
    upper = [number for point in range(17, 48) for number in range(3 * point, 3 * point + 3)]
    others = sorted(set(range(VALUES)) - set(upper))
    half = quieten(motion, mean, 0.5)
    assert torch.allclose(half[:, upper], (motion + mean)[:, upper] / 2, atol=1e-6)
    assert torch.equal(half[:, others], motion[:, others])
    assert torch.equal(quieten(motion, mean, 0.0)[:, upper], mean[upper].expand(len(motion), -1))


def test_smoothing_forgets_geometrically():
    motion = torch.zeros(6, VALUES)
    motion[0] = 1
    assert torch.allclose(smooth(motion, 0.2)[:, 0], 0.2 ** torch.arange(6.0), atol=1e-7)
    motion = torch.randn(9, VALUES)
    slow = [motion[0]]
    for frame in motion[1:]:
        slow.append(0.2 * slow[-1] + 0.8 * frame)
    assert torch.allclose(smooth(motion, 0.2), torch.stack(slow), atol=1e-6)
    assert torch.equal(smooth(motion[:1], 0.2), motion[:1])


def test_eyes_are_as_open_as_their_lids_are_apart():
    canonical = torch.from_numpy(CANONICAL_P3)
    upper, lower = [37, 38, 43, 44], [41, 40, 47, 46]  # of the 68: the lids, each over the other
    moved = torch.zeros(2, 68, 3)
    moved[1, upper, 1] += (canonical[lower, 1] - canonical[upper, 1]) / 2  # shut: the lids meet in the middle
    moved[1, lower, 1] -= (canonical[lower, 1] - canonical[upper, 1]) / 2
    open_, shut = eye_opening(moved.reshape(2, VALUES)).tolist()
    gap = (canonical[upper, 1] - canonical[lower, 1]).sum().item()
    assert open_ == 0 and shut == pytest.approx(-gap, rel=1e-5) and gap > 1


def test_a_blink_follows_its_profile(person):
    shut = person.clone()
    shut[100:109, EYES] -= 1.0  # nine of 300 frames: three in a hundred, with the narrowest eyes
    upper = [3 * point + 1 for point in (37, 38, 43, 44)]
    shut[100:109, upper] -= 5.0
    closed = closed_eyes(shut)
    assert torch.allclose(closed, shut[100:109, EYES].mean(0), atol=1e-5)

    motion = torch.randn(230, VALUES)
    blinking = blink(motion, closed)
    profile = (0.1, 0.5, 0.7, 1, 0.7, 0.5, 0.1)
    for frame in range(230):
        share = profile[frame % 100] if frame % 100 < 7 else 0
        expected = (1 - share) * motion[frame, EYES] + share * closed
        assert torch.allclose(blinking[frame, EYES], expected, atol=1e-6), frame
    untouched = torch.ones(VALUES, dtype=torch.bool)
    untouched[EYES] = False
    assert torch.equal(blinking[:, untouched], motion[:, untouched])


def test_guards_are_switches(person):
    motion, mean, std = queries(person), person.mean(0), person.std(0, correction=0)
    assert torch.equal(guarded(motion, OFF, person, mean, std), motion) and not OFF.know_the_person
    all_on = Guards(lle_share=0.5, lle_neighbours=10, clamp_std=1.0, upper_share=0.5, smoothing=0.2, blink="period")
    held = quieten(clamp(lle(motion, person, 10, 0.5, ALL), mean, std, widths(1.0)), mean, 0.5)
    expected = blink(smooth(held, 0.2), closed_eyes(person))
    assert torch.equal(guarded(motion, all_on, person, mean, std), expected) and all_on.know_the_person
    assert not torch.equal(expected, motion)
