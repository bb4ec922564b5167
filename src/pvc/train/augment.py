"""Chance on the device: contrast, brightness and noise, anew for every frame and step.

Cheap where the model is (a GPU makes millions of normal numbers while a core draws one picture), and it makes a
cached sample a new one in every round. Called by `run_stage.py`.
"""

from __future__ import annotations

import torch

from pvc.train.recipe import Augment


def augmented(pixels: torch.Tensor, augment: Augment, seed: int) -> torch.Tensor:
    """`(F, 3, S, S)` normalised pixels with a contrast, brightness and noise of their own for each frame.

    The same seed gives the same result on the same kind of device, so a resumed run sees the same pixels.
    """
    generator = torch.Generator(device=pixels.device).manual_seed(seed)
    shape = (len(pixels), 1, 1, 1)

    def even(low: float, high: float) -> torch.Tensor:
        drawn = torch.rand(shape, generator=generator, device=pixels.device, dtype=torch.float32)
        return (low + (high - low) * drawn).to(pixels.dtype)

    contrast = even(1 - augment.contrast, 1 + augment.contrast)
    brightness = even(-augment.brightness, augment.brightness)
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    changed = (pixels - mean) * contrast + mean + brightness
    if augment.noise:
        noise = torch.randn(pixels.shape, generator=generator, device=pixels.device, dtype=torch.float32)
        changed = changed + noise.to(pixels.dtype) * even(0, augment.noise)
    return changed


__all__ = ["augmented"]
