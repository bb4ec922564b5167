"""The precision of a loaded model: what `auto` stands for, how tensors are read, and what stays float32."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import pvc
from pvc.checkpoint import precision
from pvc.checkpoint.files import CheckpointFiles, Tensor, read_header
from pvc.checkpoint.stored import StoredTensor, read_values, stored_tensors
from pvc.errors import CheckpointError
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.testing import tiny_config, tiny_processor

X86 = "processor\t: 0\nmodel name\t: Some CPU with bf16 in its name\nflags\t\t: fpu avx2 avx512f{}\nbugs\t\t: bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd{} i8mm\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format(""), False),
        (X86.format(" avx512_bf16"), True),
        (X86.format(" amx_tile amx_bf16"), True),
        (X86.format(" avx512_bf16_of_another_kind"), False),
        (ARM.format(""), False),
        (ARM.format(" bf16"), True),
        ("", False),
    ],
)
def test_instructions_are_read_from_cpuinfo(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert precision.has_bfloat16(path) is expected


def test_a_system_without_cpuinfo_has_none(tmp_path):
    assert not precision.has_bfloat16(tmp_path / "nowhere")
    assert not precision.has_bfloat16(tmp_path)


LARGE = (
    Tensor("a", "BF16", (precision.SMALL_MODEL,)),
    Tensor("b.modulation.weight", "F32", (precision.SMALL_MODEL // 2,)),
)


@pytest.mark.parametrize(
    ("tensors", "device", "has", "expected"),
    [
        (LARGE, "cpu", True, "bfloat16"),
        (LARGE, "cpu", False, "float32"),
        (LARGE[:1], "cpu", True, "bfloat16"),
        ([Tensor("a", "BF16", (precision.SMALL_MODEL - 1,))], "cpu", True, "float32"),
        ([Tensor("a", "F32", (precision.SMALL_MODEL,))], "cpu", True, "float32"),
        ([Tensor("a", "F16", (precision.SMALL_MODEL,))], "cpu", True, "float32"),
        ([Tensor("a", "F32", (precision.SMALL_MODEL,))], "cuda", False, "bfloat16"),
        (LARGE, "mps", True, "float32"),
        ([], "cpu", True, "float32"),
    ],
)
def test_what_auto_stands_for(monkeypatch, tensors, device, has, expected):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: has)
    assert precision.default_dtype(tensors, device) == expected


@pytest.fixture
def half(checkpoint, tmp_path):
    """The tiny checkpoint, saved in bfloat16."""
    engine = pvc.load(checkpoint, device="cpu", dtype="bfloat16")
    engine.model.save_pretrained(tmp_path / "half")
    engine.processor.save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def dtypes(model):
    """Of modulations and the timestep embedder, and of everything else."""
    named = dict(model.named_parameters())
    wide = {name for name in named if "modulation" in name or "timestep_embedding" in name}
    return {named[name].dtype for name in wide}, {tensor.dtype for name, tensor in named.items() if name not in wide}


@pytest.mark.parametrize("asked", [None, "auto", "float32", "bfloat16", "float16", torch.float16])
@pytest.mark.parametrize("has", [True, False])
def test_a_flag_overrides_the_choice_and_modulations_stay_float32(half, monkeypatch, asked, has):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: has)
    monkeypatch.setattr(precision, "SMALL_MODEL", 1)
    chosen = asked
    if asked in (None, "auto"):
        chosen = "bfloat16" if has else "float32"
    expected = chosen if isinstance(chosen, torch.dtype) else getattr(torch, chosen)
    engine = pvc.load(half, device="cpu", dtype=asked)
    assert dtypes(engine.model) == ({torch.float32}, {expected})
    stored = load_file(half / "model.safetensors")
    for name, tensor in engine.model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype)), name


def test_the_bundled_model_is_the_same_on_every_machine(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    assert {tensor.dtype for tensor in CheckpointFiles().tensors()} == {"BF16", "F32"}
    assert pvc.load(device="cpu").model.dtype == torch.float32


@pytest.mark.parametrize("wrong", ["int8", "half", "float17", "", torch.int8, 16])
def test_what_is_no_precision_is_refused(checkpoint, wrong):
    with pytest.raises(CheckpointError, match="dtype must be"):
        pvc.load(checkpoint, device="cpu", dtype=wrong)


def test_tensors_are_read_alone(tmp_path):
    tensors = {
        "half": torch.randn(5, 3, 2).bfloat16(),
        "whole": torch.randn(4, 7),
        "scalar": torch.tensor(2.5, dtype=torch.float16),
        "empty": torch.zeros(0, 3),
        "numbers": torch.arange(12).view(4, 3),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    entries = {tensor.name: tensor for tensor in read_header(path)[0]}
    for name, tensor in tensors.items():
        read = read_values(path, entries[name])
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)
        assert torch.equal(StoredTensor(path, entries[name])[...], tensor)
    for rows in (slice(1, 3), slice(0, 1), slice(3, 9), slice(2, 2), slice(None)):
        for name in ("half", "whole", "numbers"):
            assert torch.equal(read_values(path, entries[name], rows), tensors[name][rows])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="whole|cut short|cannot read"):
        for entry in entries.values():
            read_values(path, entry)
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot read whole"):
        read_values(path, entries["whole"])


def test_what_is_loaded_does_not_depend_on_the_file_afterwards(half):
    engine = pvc.load(half, device="cpu", dtype="bfloat16")
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    path = half / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(1000))
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.model.state_dict().items())
    assert set(stored_tensors(CheckpointFiles(half))) == set(before)


PEAK = """
import sys
import pvc

def memory(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

pvc.load(device="cpu")  # what libraries take
before = memory("VmRSS")
engine = pvc.load(sys.argv[1], device="cpu", dtype=sys.argv[2])
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("bfloat16", 2)])
def test_weights_are_held_once(tmp_path, dtype, itemsize):
    """A file that stays mapped, or holes that buffers leave in the heap, would be half as much again in float32."""
    text = {**tiny_config().text_config.to_dict(), "intermediate_size": 2**16, "num_hidden_layers": 32}
    config = tiny_config(text_config={**text, "layer_types": None})
    with torch.device("meta"):
        state = PVCForConditionalGeneration(config).state_dict()
    count = sum(tensor.numel() for tensor in state.values())
    assert count > 190e6
    directory = tmp_path / "wide"
    config.save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    halves = {name: torch.full(tensor.shape, 0.01, dtype=torch.bfloat16) for name, tensor in state.items()}
    save_file(halves, directory / "model.safetensors", metadata={"format": "pt"})
    del halves
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(directory), dtype], capture_output=True, text=True, check=True
    )
    assert 1024 * int(done.stdout) < 1.15 * itemsize * count
