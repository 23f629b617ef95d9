"""PSNR and SSIM of generated frames, on the frame and inside the mask.

Conventions (they change the numbers, so each score carries them by name): uint8 RGB; per frame, then the mean over a clip's
frames, then over clips; SSIM as Wang et al. 2004 (Gaussian window, σ 1.5, population covariance), per channel, on the valid
area. A score on the whole frame flatters any system that keeps most of it, so the mask's comes first.
"""

import numpy as np
from skimage.metrics import structural_similarity

IDENTICAL = 100.0  # dB given to equal frames, whose PSNR is infinite


def psnr(real_THW3: np.ndarray, fake_THW3: np.ndarray, mask_THW: np.ndarray | None = None) -> np.ndarray:
    """`(T,)` PSNR in dB of uint8 frames; with a bool mask, over its pixels alone."""
    squared_THW = ((real_THW3.astype(np.float64) - fake_THW3) ** 2).mean(axis=-1)
    weight_THW = np.ones_like(squared_THW) if mask_THW is None else mask_THW.astype(np.float64)
    error_T = (squared_THW * weight_THW).sum(axis=(1, 2)) / weight_THW.sum(axis=(1, 2))
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(255**2 / error_T), IDENTICAL)


def ssim(real_THW3: np.ndarray, fake_THW3: np.ndarray, mask_THW: np.ndarray | None = None) -> np.ndarray:
    """`(T,)` SSIM of uint8 frames; with a bool mask, the mean of the SSIM map over its pixels."""
    scores = []
    for index, (real, fake) in enumerate(zip(real_THW3, fake_THW3, strict=True)):
        mean, full = structural_similarity(
            real,
            fake,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        scores.append(mean if mask_THW is None else full[mask_THW[index]].mean())
    return np.array(scores)


def box_mask(boxes_T4: np.ndarray, height: int, width: int) -> np.ndarray:
    """`(T, H, W)` bool from `(T, 4)` half-open boxes x0 y0 x1 y1."""
    x, y = np.arange(width)[None, None], np.arange(height)[None, :, None]
    x0, y0, x1, y1 = (edge[:, None, None] for edge in boxes_T4.T)
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def scores(real_THW3: np.ndarray, fake_THW3: np.ndarray, boxes_T4: np.ndarray) -> dict[str, float]:
    """All four, each the mean over the frames given."""
    mask_THW = box_mask(boxes_T4, *real_THW3.shape[1:3])
    return {
        "psnr_mask": float(psnr(real_THW3, fake_THW3, mask_THW).mean()),
        "ssim_mask": float(ssim(real_THW3, fake_THW3, mask_THW).mean()),
        "psnr_frame": float(psnr(real_THW3, fake_THW3).mean()),
        "ssim_frame": float(ssim(real_THW3, fake_THW3).mean()),
    }
