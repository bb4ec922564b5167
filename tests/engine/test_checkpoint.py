"""Loading: all or nothing, and one clear error that says what is wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import pvc
from pvc.checkpoint.files import CheckpointFiles
from pvc.errors import CheckpointError, UsageError


@pytest.fixture
def broken(checkpoint, tmp_path):
    """A copy to damage."""
    return shutil.copytree(checkpoint, tmp_path / "model")


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_tensors(directory, change):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def test_round_trip(checkpoint):
    engine = pvc.load(checkpoint, device="cpu")
    tensors = load_file(checkpoint / "model.safetensors")
    state = engine.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in tensors.items())
    assert {tensor.name: tensor.shape for tensor in CheckpointFiles(checkpoint).tensors()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    assert not engine.model.training


def test_dtypes(checkpoint):
    engine = pvc.load(checkpoint, device="cpu", dtype="bfloat16")
    assert engine.model.lm_head.weight.dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match="dtype"):
        pvc.load(checkpoint, dtype="float17")
    with pytest.raises(UsageError, match="'tpu'"):
        pvc.load(checkpoint, device="tpu")


def test_no_directory(tmp_path):
    with pytest.raises(CheckpointError, match="no model directory"):
        pvc.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        pvc.load(tmp_path)


def test_no_weights(broken):
    (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights: model\.safetensors"):
        pvc.load(broken)
    (broken / "pytorch_model.bin").write_bytes(b"pickles are never loaded")
    with pytest.raises(CheckpointError, match="no weights"):
        pvc.load(broken)


def test_a_tensor_is_missing_left_over_or_misshapen(broken):
    name = "model.multi_modal_projector.linear_1.bias"
    edit_tensors(broken, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"missing tensors: {name}"):
        pvc.load(broken)
    edit_tensors(broken, lambda tensors: tensors.update({name: torch.zeros(7)}))
    with pytest.raises(CheckpointError, match=f"misshapen tensors: {name}"):
        pvc.load(broken)
    edit_tensors(broken, lambda tensors: tensors.update({name: torch.zeros(32), "model.extra": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"unknown tensors: model\.extra"):
        pvc.load(broken)


def test_cut_short_or_not_safetensors(broken):
    path = broken / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:50], b"", b"\xff" * 100, b"\x10" + b"\x00" * 7 + b"{]" * 8):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            CheckpointFiles(broken).tensors()
        with pytest.raises(CheckpointError):
            pvc.load(broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(downsample_rato=0.5), "unknown key in config: downsample_rato"),
        (lambda c: c["vision_config"].update(temporal_windw=5), "unknown key in vision_config: temporal_windw"),
        (lambda c: c.update(downsample_ratio=0.125), "1/8 does not divide the 4 x 4 patches"),
        (lambda c: c.update(downsample_ratio="half"), "downsample_ratio"),
        (lambda c: c.update(model_type="internvl"), "type 'internvl'"),
        (lambda c: c.update(image_steps=0), "image_steps is 0"),
        (lambda c: c.update(image_token_id=c["video_token_id"]), "must differ"),
    ],
)
def test_wrong_configuration(broken, change, message):
    edit(broken / "config.json", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        pvc.load(broken)
    assert "\n" not in str(caught.value)


def test_processor_that_does_not_fit(broken):
    edit(broken / "processor_config.json", lambda c: c.update(tokens_per_frame=4))
    with pytest.raises(CheckpointError, match="tokens per frame is 4, but the model's is 1"):
        pvc.load(broken)
    edit(broken / "processor_config.json", lambda c: c.update(tokens_per_frame=1))
    edit(broken / "processor_config.json", lambda c: c["video_processor"].update(size={"height": 64, "width": 64}))
    with pytest.raises(CheckpointError, match=r"video frame size is \(64, 64\), but the model's is \(32, 32\)"):
        pvc.load(broken)


def test_garbage_json(broken):
    (broken / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read"):
        pvc.load(broken)
    (broken / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object"):
        pvc.load(broken)


def test_index_cannot_leave_the_directory(broken):
    (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside the directory"):
        pvc.load(broken)


def test_a_directory_cannot_run_code(broken, capsys, monkeypatch):
    """transformers would ask on the terminal; an answer of yes on standard input must not matter."""
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    (broken / "evil.py").write_text("raise SystemError('executed')\nclass Evil: pass\n")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        original = (broken / name).read_text()
        edit(broken / name, lambda c: c.update(auto_map={"AutoTokenizer": "evil.Evil", "AutoProcessor": "evil.Evil"}))
        with pytest.raises(CheckpointError, match="auto_map"):
            pvc.load(broken)
        (broken / name).write_text(original)
    edit(broken / "config.json", lambda c: c["text_config"].update(auto_map={"AutoConfig": "evil.Evil"}))
    with pytest.raises(CheckpointError, match="auto_map"):
        pvc.load(broken)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda c: c.update(text_config=5)),
        ("config.json", lambda c: c.update(vision_config=[])),
        ("config.json", lambda c: c["text_config"].update(hiden_size=5)),
        ("config.json", lambda c: c["vision_config"].update(num_attention_heads=0)),
        ("config.json", lambda c: c["text_config"].update(num_attention_heads=0)),
        ("config.json", lambda c: c["vision_config"].update(patch_size=0)),
        ("config.json", lambda c: c["vision_config"].update(hidden_size="many")),
        ("config.json", lambda c: c["text_config"].update(hidden_act="magic")),
        ("config.json", lambda c: c.update(projector_hidden_act="magic")),
        ("config.json", lambda c: c.update(dtype="foo")),
        ("processor_config.json", lambda c: c.update(video_processor=[])),
        ("processor_config.json", lambda c: c["image_processor"].update(size=5)),
        ("processor_config.json", lambda c: c["video_processor"].update(size={"height": 32, "width": 64})),
        ("processor_config.json", lambda c: c["image_processor"].update(size={"height": 32, "width": 64})),
    ],
)
def test_odd_values_are_checkpoint_errors(broken, name, change):
    edit(broken / name, change)
    with pytest.raises(CheckpointError) as caught:
        pvc.load(broken).chat().ask("x", [torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", [None, "{% for %}", "{{ raise_exception('no') }}", "nothing"])
def test_templates_that_do_not_work(broken, template):
    path = broken / "chat_template.jinja"
    if template is None:
        path.unlink()
    else:
        path.write_text(template)
    with pytest.raises(CheckpointError, match="template"):
        pvc.load(broken)


def test_a_bad_generation_config(broken):
    (broken / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="generation_config"):
        pvc.load(broken)
    (broken / "generation_config.json").write_text(json.dumps({"num_beams": 3, "num_return_sequences": 2}))
    assert pvc.load(broken).chat().ask("x").completion_tokens > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("int8", "quantization_config must be an object"),
        ({"quant_method": "nonsense"}, "quant_method 'nonsense'; transformers here knows .*torchao"),
        ({"quant_method": [1]}, r"quant_method '\[1\]'"),
    ],
)
def test_quantisation_of_an_unknown_method_is_refused(broken, settings, message):
    edit(broken / "config.json", lambda config: config.update(quantization_config=settings))
    with pytest.raises(CheckpointError, match=message):
        pvc.load(broken, device="cpu")


@pytest.mark.parametrize("method", ["aqlm", "vptq"])
def test_a_missing_package_for_quantised_weights_is_named(broken, method):
    """These packages are made for GPUs, so the tests' environment has neither."""
    edit(broken / "config.json", lambda config: config.update(quantization_config={"quant_method": method}))
    with pytest.raises(CheckpointError, match=rf"quantised \({method}\), and the package for it is missing"):
        pvc.load(broken, device="cpu")
