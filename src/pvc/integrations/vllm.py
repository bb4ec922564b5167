"""The vLLM plugin: it registers PVC's architecture and a video reader, so that vLLM can serve a PVC directory.

The architecture runs on vLLM's transformers backend. Every vLLM process loads the plugin through the entry point group
`vllm.general_plugins`. The endpoint of vLLM trusts its clients: text that spells a control token becomes that token,
and media are decoded in the server's process (docs/serve.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pvc import media
from pvc.errors import PVCError

ARCHITECTURE = "PVCForConditionalGeneration"


def register() -> None:
    """Register configuration, processor, architecture and video reader. Further calls change nothing."""
    from vllm import ModelRegistry

    import pvc.auto  # noqa: F401  # registers the classes that vLLM finds through transformers

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__name__}:{ARCHITECTURE}")
    _register_reader()


def read_video(
    data: bytes, num_frames: int = -1, fps: float = -1, size: int | None = None, **others: Any
) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Read the frames of a video and their true times.

    Args:
        data: content of the file.
        num_frames: number of frames; below 1 the default of 16. Ignored if `fps` is above 0.
        fps: sampled frames per second; not used if it is 0 or less.
        size: side of the frames in pixels; None leaves their size unchanged.
        **others: options of vLLM's readers, ignored.

    Returns:
        Frames `(F, H, W, 3)` uint8, and the metadata that vLLM passes to the processor.

    Raises:
        ValueError: the file is rejected or cannot be read; vLLM responds with status 400.
    """
    sampling = media.Sampling(fps=fps) if fps > 0 else media.Sampling(frames=num_frames if num_frames > 0 else 16)
    try:
        video = media.load(data, kind="video", sampling=sampling, size=(size, size) if size else None)
    except PVCError as error:
        raise ValueError(f"the video is rejected: {error.code}") from None
    assert isinstance(video, media.Video)
    frames = len(video.timestamps)
    metadata = {"total_num_frames": frames, "frames_indices": list(range(frames)), "do_sample_frames": False}
    metadata |= {"fps": None, "duration": video.duration, "video_backend": "pvc", "timestamps": list(video.timestamps)}
    return video.frames, metadata


def _register_reader() -> None:
    """Register `read_video` for PVC's processor, because vLLM's readers use index / rate as the time of a frame."""
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

    class Reader(VideoLoader):  # type: ignore[misc]
        @classmethod
        def load_bytes(cls, data: bytes, **options: Any) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
            return read_video(data, **options)

    VIDEO_LOADER_REGISTRY.register("pvc", video_processor="PVCVideoProcessor")(Reader)


def __getattr__(name: str) -> object:
    """Build the class of the architecture at its first use: importing this file must not import vLLM's models."""
    if name != ARCHITECTURE:
        raise AttributeError(name)
    from vllm.model_executor.models.transformers import TransformersMultiModalForCausalLM

    architecture = type(ARCHITECTURE, (TransformersMultiModalForCausalLM,), {"__module__": __name__})
    globals()[ARCHITECTURE] = architecture
    return architecture


__all__ = ["read_video", "register"]
