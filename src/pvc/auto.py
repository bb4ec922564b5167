"""Registration of PVC's classes with transformers' Auto classes.

`import pvc.auto` registers them, and so does the first use of a `PVC*` class of `pvc`. Remote code is never needed and
never allowed. Imports torch and transformers.
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.model.modeling import PVCForConditionalGeneration, PVCModel
from pvc.model.vision import PVCVisionModel
from pvc.processing.image import PVCImageProcessor
from pvc.processing.processor import PVCProcessor
from pvc.processing.video import PVCVideoProcessor


def register() -> None:
    """Register every class. Further calls change nothing."""
    AutoConfig.register("pvc", PVCConfig, exist_ok=True)
    AutoConfig.register("pvc_vision", PVCVisionConfig, exist_ok=True)
    AutoModel.register(PVCConfig, PVCModel, exist_ok=True)
    AutoModel.register(PVCVisionConfig, PVCVisionModel, exist_ok=True)
    AutoModelForImageTextToText.register(PVCConfig, PVCForConditionalGeneration, exist_ok=True)
    AutoModelForMultimodalLM.register(PVCConfig, PVCForConditionalGeneration, exist_ok=True)
    AutoImageProcessor.register(PVCConfig, image_processor_classes={"pil": PVCImageProcessor}, exist_ok=True)
    AutoVideoProcessor.register(PVCConfig, PVCVideoProcessor, exist_ok=True)
    AutoProcessor.register(PVCConfig, PVCProcessor, exist_ok=True)


register()

__all__ = ["register"]
