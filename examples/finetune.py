"""From an InternVL checkpoint to an answer: convert, check the data, train in two stages, ask.

    python examples/finetune.py [DIRECTORY]

The checkpoint is a tiny one with random weights, made here, so that all of it runs on a laptop in a minute without a
network; put a real directory in its place and everything else stays. It prints every command that it runs.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from transformers import InternVLConfig, InternVLForConditionalGeneration

from pvc.cli.main import main
from pvc.processing.tokenizer import build_tokenizer


def tiny_internvl(directory: Path) -> Path:
    """An InternVL of a hundred thousand parameters, as transformers writes them."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["what does it show? which way? a red circle\nuser\nassistant\nsystem\n"] * 4, 300)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<IMG_CONTEXT>", "<|im_end|>")}
    vision = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = InternVLConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 4, "attention_bias": True},
        text_config={**text, "model_type": "qwen2", "intermediate_size": 64, "vocab_size": len(tokenizer)},
        image_token_id=ids["<IMG_CONTEXT>"],
        downsample_ratio=0.5,
    )
    InternVLForConditionalGeneration(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def recipe(folder: Path, data: dict[str, Path]) -> Path:
    """Both stages of `recipes/tune.yaml`, cut short: what PVC adds first, then adapters on the language model."""
    common = {"kind": "chat", "batch_size": 8, "pack": 512, "image_steps": {1: 1, 2: 1, 4: 2}, "warmup_steps": 2}
    common |= {"files": {str(path): 1.0 for path in data.values()}, "file_frames": {4: 1, 8: 1}}
    new = ["temporal", "timestep_embedding", "multi_modal_projector"]
    stages = [
        {"name": "align", "steps": 12, "learning_rate": 2e-3, "trained": new, **common},
        {"name": "instruct", "steps": 12, "learning_rate": 1e-3, "trained": new, "lora": {"rank": 4}, **common},
    ]
    path = folder / "tune.yaml"
    path.write_text(yaml.safe_dump({"name": "tune", "stages": stages}), encoding="utf-8")
    return path


def run(*command: object) -> None:
    """One command of `pvc`, printed and run."""
    words = [str(word) for word in command]
    print(f"\n$ pvc {shlex.join(words)}", flush=True)
    if code := main(words):
        sys.exit(code)


def finetune(folder: Path) -> None:
    """All of it, in a folder."""
    source = tiny_internvl(folder / "internvl")
    run("convert", source, folder / "pvc", "--check", "--temporal-layers", 1, "--ratio", 0.25)
    data = {}
    for kind, task in (("pictures", "shape"), ("videos", "direction")):
        run("lab", "synth", folder / kind, "--task", task, "--count", 24, "--size", 64, "--split", "train")
        data[kind] = folder / kind / "data.jsonl"
    run("data", "check", *data.values(), "--model", folder / "pvc")
    picture = next((folder / "pictures").glob("**/*.png"))
    # In closed form a picture's steps carry the source's tokens: this is what the source would answer.
    run("ask", picture, "What does it show?", "--model", folder / "pvc", "--max-new-tokens", 8)
    path = recipe(folder, data)
    run("train", path, "--init-from", folder / "pvc", "--dry-run")
    run("train", path, "--init-from", folder / "pvc", "--out", folder / "run")
    run("ask", picture, "What does it show?", "--model", folder / "run" / "model", "--max-new-tokens", 8)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True)
        finetune(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            finetune(Path(temporary))
