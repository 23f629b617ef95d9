"""PSNR and SSIM against golden values and closed forms."""

import hashlib

import numpy as np
import pytest

from stages.metrics.image import IDENTICAL, box_mask, psnr, scores, ssim


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two images made by formula, so that no file or generator can move the golden values."""
    y, x = np.mgrid[:128, :128].astype(np.float64)
    a = (127.5 + 100 * np.sin(x / 7) * np.cos(y / 11), 127.5 + 90 * np.cos((x + y) / 9), (2 * x) % 256)
    b = (127.5 + 100 * np.sin((x + 1) / 7) * np.cos(y / 11), 127.5 + 80 * np.cos((x + y) / 9), (2 * x + 3) % 256)
    images = tuple(np.rint(np.stack(planes, -1).clip(0, 255)).astype(np.uint8) for planes in (a, b))
    assert hashlib.sha256(images[0].tobytes()).hexdigest().startswith("1971af0bd155c740")
    assert hashlib.sha256(images[1].tobytes()).hexdigest().startswith("b000b1a5cafcd4d9")
    return images


def test_golden_values(pair):
    a, b = (image[None] for image in pair)
    assert psnr(a, b)[0] == pytest.approx(25.0714185526, abs=1e-9)
    assert ssim(a, b)[0] == pytest.approx(0.9892153851, abs=1e-9)


def test_a_constant_offset_has_the_closed_form():
    a = np.full((2, 32, 32, 3), 100, np.uint8)
    assert psnr(a, a + 5) == pytest.approx([20 * np.log10(255 / 5)] * 2)
    assert psnr(a, a).tolist() == [IDENTICAL] * 2
    assert ssim(a, a) == pytest.approx([1, 1])


def test_a_difference_in_the_mask_is_weighed_over_the_mask_alone(pair):
    a = pair[0][None]
    b = a.copy()
    b[0, 60:100, 20:90] = 255 - b[0, 60:100, 20:90]
    boxes = np.array([[20, 60, 90, 100]], np.int16)
    mask = box_mask(boxes, 128, 128)
    assert mask.sum() == 40 * 70
    patch = psnr(a[:, 60:100, 20:90], b[:, 60:100, 20:90])
    assert psnr(a, b, mask) == pytest.approx(patch)
    row = scores(a, b, boxes)
    assert row["psnr_frame"] - row["psnr_mask"] == pytest.approx(10 * np.log10(128 * 128 / mask.sum()))
    assert row["ssim_mask"] < row["ssim_frame"]


def test_frames_are_averaged_one_by_one_not_pooled():
    a = np.full((2, 16, 16, 3), 100, np.uint8)
    b = np.stack([a[0] + 1, a[1] + 50])
    expected = np.mean([20 * np.log10(255 / 1), 20 * np.log10(255 / 50)])
    assert scores(a, b, np.array([[0, 0, 16, 16]] * 2))["psnr_frame"] == pytest.approx(expected)
