"""vLLM serves a PVC directory: a plugin that tells vLLM of the architecture and reads its videos.

The architecture is on vLLM's transformers backend. vLLM loads the plugin by itself (entry point group
`vllm.general_plugins`), in every process. Its own endpoint trusts its callers: text that spells a control token becomes
one there, and media are decoded in its process (docs/serve.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pvc import media
from pvc.errors import PVCError

ARCHITECTURE = "PVCForConditionalGeneration"


def register() -> None:
    """Register the configuration, the processor and the architecture; may be called again and again."""
    from vllm import ModelRegistry

    import pvc.auto  # noqa: F401  # what vLLM looks up through transformers

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__name__}:{ARCHITECTURE}")
    _register_reader()


def read_video(
    data: bytes, num_frames: int = -1, fps: float = -1, size: int | None = None, **others: Any
) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Frames `(F, H, W, 3)` uint8 of a video's bytes and what vLLM hands to the processor with them: their true times.

    Args:
        data: the file.
        num_frames, fps: how it is sampled; below 0: not said. `fps` goes before.
        size: side in pixels of the frames; None leaves them as they are.
        others: options of vLLM's own readers, of no meaning here.

    Raises:
        ValueError: for what cannot be read, which vLLM answers with 400.
    """
    sampling = media.Sampling(fps=fps) if fps > 0 else media.Sampling(frames=num_frames if num_frames > 0 else 16)
    try:
        video = media.load(data, kind="video", sampling=sampling, size=(size, size) if size else None)
    except PVCError as error:
        raise ValueError(f"the video is refused: {error.code}") from None
    assert isinstance(video, media.Video)
    frames = len(video.timestamps)
    told = {"total_num_frames": frames, "frames_indices": list(range(frames)), "do_sample_frames": False}
    told |= {"fps": None, "duration": video.duration, "video_backend": "pvc", "timestamps": list(video.timestamps)}
    return video.frames, told


def _register_reader() -> None:
    """Have vLLM read videos for our processor with `read_video`: its own readers say index / rate for the time."""
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

    class Reader(VideoLoader):  # type: ignore[misc]
        @classmethod
        def load_bytes(cls, data: bytes, **options: Any) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
            return read_video(data, **options)

    VIDEO_LOADER_REGISTRY.register("pvc", video_processor="PVCVideoProcessor")(Reader)


def __getattr__(name: str) -> object:
    """The class, made when vLLM asks for it: importing this file must not import vLLM's models."""
    if name != ARCHITECTURE:
        raise AttributeError(name)
    from vllm.model_executor.models.transformers import TransformersMultiModalForCausalLM

    made = type(ARCHITECTURE, (TransformersMultiModalForCausalLM,), {"__module__": __name__})
    globals()[ARCHITECTURE] = made
    return made


__all__ = ["read_video", "register"]
