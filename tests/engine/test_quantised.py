"""Quantised checkpoints: torchao's int8 weights are saved, loaded again by transformers and pvc, and answer alike."""

from pathlib import Path

import pytest
import torch
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForImageTextToText, TorchAoConfig

import pvc
import pvc.auto  # registers the classes
from pvc.checkpoint.files import BUNDLED, CheckpointFiles
from pvc.processing import PVCProcessor

SIGN = Path(__file__).parents[2] / "examples" / "sign.png"
QUESTION = "What does it say?"


@pytest.fixture(scope="module")
def inputs():
    messages = [{"role": "user", "content": [{"type": "image", "path": str(SIGN)}, {"type": "text", "text": QUESTION}]}]
    return PVCProcessor.from_pretrained(BUNDLED).apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory, inputs):
    """The bundled model in int8, and its logits before it was saved."""
    folder = tmp_path_factory.mktemp("int8")
    config = TorchAoConfig(Int8WeightOnlyConfig(version=2))
    model = AutoModelForImageTextToText.from_pretrained(BUNDLED, quantization_config=config).eval()
    with torch.no_grad():
        logits = model(**inputs).logits
    model.save_pretrained(folder)
    PVCProcessor.from_pretrained(BUNDLED).save_pretrained(folder)
    return folder, logits


def test_the_weights_on_disk_are_int8(directory):
    tensors = CheckpointFiles(directory[0]).tensors()
    assert {tensor.dtype for tensor in tensors if "gate_proj" in tensor.name} >= {"I8"}
    whole = sum(tensor.nbytes for tensor in CheckpointFiles().tensors())
    assert sum(tensor.nbytes for tensor in tensors) < 0.6 * whole  # which is float16


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
