"""Peak memory of converting a checkpoint of 2 GB in two shards and comparing the result."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration

from tests.convert.sources import VISION, _tokenizer

RUN = """
import sys
from pvc.cli.main import main
code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""
WIDE = {"hidden_size": 1024, "intermediate_size": 16384, "num_hidden_layers": 8, "vocab_size": 50000}


@pytest.mark.slow
@pytest.mark.parametrize("check", [False, True])
def test_memory_is_that_of_a_shard(tmp_path, check):
    source = tmp_path / "source"
    source.mkdir()
    _, ids = _tokenizer(source)
    text = {"model_type": "qwen2", "num_attention_heads": 16, "num_key_value_heads": 4, **WIDE}
    config = InternVLConfig(
        vision_config=VISION, text_config=text, image_token_id=ids["<IMG_CONTEXT>"], tie_word_embeddings=False
    )
    config.save_pretrained(source)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in InternVLForConditionalGeneration(config).state_dict().items()}
    shards, sizes = [{}, {}], [0, 0]
    for name, shape in sorted(shapes.items(), key=lambda item: -item[1].numel()):
        place = sizes.index(min(sizes))
        shards[place][name] = torch.full(shape, 0.01)
        sizes[place] += 4 * shape.numel()
    assert sum(sizes) > 2e9
    names = [f"model-0000{number + 1}-of-00002.safetensors" for number in range(2)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, source / name, metadata={"format": "pt"})
    places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    del shards
    done = subprocess.run(
        [sys.executable, "-c", RUN, "convert", str(source), str(tmp_path / "made"), *["--check"] * check],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, largest = 1024 * int(done.stdout.split()[-1]), max(sizes)
    print(f"peak {peak / 2**20:.0f} MiB, largest shard {largest / 2**20:.0f} MiB")
    assert peak <= 1.3 * largest + 2**30
