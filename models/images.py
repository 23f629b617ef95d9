"""Images as bytes and as networks take them, and boxes in them."""

import torch
from torch import Tensor


def to_unit(images_BHW3: Tensor) -> Tensor:
    """uint8 images (B, H, W, 3) -> (B, 3, H, W) float in [-1, 1]."""
    return images_BHW3.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images_B3HW: Tensor) -> Tensor:
    """The inverse of `to_unit`, rounding."""
    return ((images_B3HW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def box_mask(boxes_B4: Tensor, size: int) -> Tensor:
    """Boxes x0 y0 x1 y1, half open, in images of size x size -> (B, 1, H, W) bool, true inside."""
    x0, y0, x1, y1 = boxes_B4[:, :, None, None, None].unbind(1)
    pixels = torch.arange(size, device=boxes_B4.device)
    x, y = pixels[None, :], pixels[:, None]
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
