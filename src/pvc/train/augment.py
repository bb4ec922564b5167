"""Random changes of contrast, brightness and noise on the device, for every frame and step.

This is cheap on the device: a GPU samples millions of normal numbers while a core renders one picture. A cached example
thus differs in every epoch. Called by `trainer.py`.

F frames, S pixels a side.
"""

from __future__ import annotations

import torch

from pvc.train.recipe import Augment


def augment_pixels(pixels: torch.Tensor, augment: Augment, seed: int) -> torch.Tensor:
    """Return pixels with independently sampled contrast, brightness and noise for each frame.

    The same seed gives the same result on the same kind of device, so that a resumed run has the same pixels.

    Args:
        pixels: `(F, 3, S, S)`, normalised.
        augment: limits of the changes.
        seed: of the samples.
    """
    generator = torch.Generator(device=pixels.device).manual_seed(seed)
    shape = (len(pixels), 1, 1, 1)

    def sample_uniform(low: float, high: float) -> torch.Tensor:
        uniform = torch.rand(shape, generator=generator, device=pixels.device, dtype=torch.float32)
        return (low + (high - low) * uniform).to(pixels.dtype)

    contrast = sample_uniform(1 - augment.contrast, 1 + augment.contrast)
    brightness = sample_uniform(-augment.brightness, augment.brightness)
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    changed = (pixels - mean) * contrast + mean + brightness
    if augment.noise:
        noise = torch.randn(pixels.shape, generator=generator, device=pixels.device, dtype=torch.float32)
        changed = changed + noise.to(pixels.dtype) * sample_uniform(0, augment.noise)
    return changed


__all__ = ["augment_pixels"]
