"""Quantised checkpoints are saved, and loaded again by transformers and pvc, with the same logits.

The method here is registered by transformers' public extension point, so that no package has to be installed; with
torchao installed, its int8 weights are tested, too.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

import pvc
import pvc.auto  # registers the classes
from pvc.checkpoint.files import BUNDLED, CheckpointFiles
from pvc.processing import PVCProcessor

SIGN = Path(__file__).parents[2] / "examples" / "sign.png"
QUESTION = "What does it say?"
METHODS = [
    "pvc_test_int8",
    pytest.param(
        "torchao", marks=pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao is not installed")
    ),
]


class Int8Linear(nn.Module):
    """A linear layer with int8 weights and one scale per row."""

    def __init__(self, features_in, features_out, bias):
        super().__init__()
        self.register_buffer("weight", torch.zeros(features_out, features_in, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(features_out, 1))
        self.bias = nn.Parameter(torch.zeros(features_out)) if bias else None

    def forward(self, x):
        return nn.functional.linear(x, self.weight * self.scale, self.bias)


def replace_linear_layers(model):
    """Put Int8Linear in place of the language model's linear layers; a layer that has weights keeps them, rounded."""
    for module in list(model.model.language_model.modules()):
        for name, layer in list(module.named_children()):
            if not isinstance(layer, nn.Linear):
                continue
            new = Int8Linear(layer.in_features, layer.out_features, layer.bias is not None)
            new.to(layer.weight.device)
            if layer.weight.device.type != "meta":
                new.scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
                new.weight = (layer.weight.detach() / new.scale).round().to(torch.int8)
                new.bias = layer.bias
            setattr(module, name, new)


@register_quantization_config("pvc_test_int8")
class Int8Config(QuantizationConfigMixin):
    def __init__(self, **kwargs):
        self.quant_method = "pvc_test_int8"


@register_quantizer("pvc_test_int8")
class Int8Quantizer(HfQuantizer):
    requires_calibration = True
    is_trainable = False

    def is_serializable(self, *args, **kwargs):
        return True

    def _process_model_before_weight_loading(self, model, **kwargs):
        replace_linear_layers(model)


def quantise(method):
    if method == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        config = TorchAoConfig(Int8WeightOnlyConfig(version=2))
        return AutoModelForImageTextToText.from_pretrained(BUNDLED, quantization_config=config).eval()
    model = AutoModelForImageTextToText.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    replace_linear_layers(model)
    model.config.quantization_config = Int8Config()
    return model


@pytest.fixture(scope="module")
def inputs():
    parts = [{"type": "image", "path": str(SIGN)}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": parts}]
    return PVCProcessor.from_pretrained(BUNDLED).apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True
    )


@pytest.fixture(scope="module", params=METHODS)
def directory(request, tmp_path_factory, inputs):
    """The bundled model in int8, and its logits before it was saved."""
    folder = tmp_path_factory.mktemp("int8")
    model = quantise(request.param)
    with torch.no_grad():
        logits = model(**inputs).logits
    model.save_pretrained(folder)
    PVCProcessor.from_pretrained(BUNDLED).save_pretrained(folder)
    return folder, logits


def test_the_weights_on_disk_are_int8(directory):
    files = CheckpointFiles(directory[0])
    assert files.config["quantization_config"]["quant_method"]
    tensors = [tensor for tensor in files.tensors() if "gate_proj" in tensor.name]
    assert "I8" in {tensor.dtype for tensor in tensors}
    assert sum(t.nbytes for t in files.tensors()) < sum(4 * t.count for t in CheckpointFiles().tensors())


def test_transformers_loads_it_again(directory, inputs):
    folder, expected = directory
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expected)


def test_pvc_loads_it_again(directory, inputs):
    folder, expected = directory
    engine = pvc.load(folder, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(engine.model(**inputs).logits, expected, rtol=1e-3, atol=1e-3)
    assert engine.chat().ask(QUESTION, media=[str(SIGN)]).text == "42"
