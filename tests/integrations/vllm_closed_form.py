"""Compare greedy tokens of a converted checkpoint with its source's: in vLLM, transformers, the server and the engine.

    python -m tests.integrations.vllm_closed_form        in an environment with vLLM (make test-vllm)

The source is a tiny InternVL with random weights in transformers' format. Its greedy tokens are the reference.
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import InternVLForConditionalGeneration

import pvc
import pvc.auto
from pvc.convert import convert
from tests.convert import sources
from tests.integrations.vllm_tokens import LENGTH, build_cases, build_messages, compare, generate_with_engine

# vLLM's CPU attention needs heads of at least 32.
TEXT = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 192}


def generate_with_source(source_model, engine, images, question, never):
    """Generate tokens with the source model on the same pixels and ids."""
    messages = build_messages(images, [], question)
    values = iter(images)
    for part in messages[0]["content"]:
        if part["type"] == "image":
            part["image"] = next(values)
    batch = engine.processor.apply_chat_template([messages], tokenize=True, add_generation_prompt=True)
    output = source_model.generate(
        input_ids=batch["input_ids"],
        pixel_values=batch["pixel_values"],
        max_new_tokens=LENGTH,
        do_sample=False,
        suppress_tokens=never,
    )
    return output[0, batch["input_ids"].shape[1] :].tolist()


def main():
    """Convert the source, compare all cases, and exit with 1 if any differs."""
    from vllm import LLM

    torch.set_num_threads(1)
    sources.TEXT.update(TEXT)
    with tempfile.TemporaryDirectory() as folder:
        source = sources.transformers_format(Path(folder, "source"), vision={"initializer_range": 1e-10})
        target = Path(folder, "pvc")
        convert(source, target)
        engine = pvc.load(target, device="cpu", dtype=torch.float32)
        source_model = InternVLForConditionalGeneration.from_pretrained(source).eval()
        llm = LLM(
            str(target),
            dtype="float32",
            max_model_len=2048,
            max_num_batched_tokens=2048,
            limit_mm_per_prompt={"image": 4, "video": 4},
            enforce_eager=True,
        )
        cases = [case for case in build_cases() if case[1] and not case[2]]
        tokenizer = engine.processor.tokenizer
        never = [engine.processor.image_token_id, engine.processor.video_token_id, tokenizer.eos_token_id]
        failures = compare(engine, llm, cases, never, ", closed form")
        for name, images, _, question in cases:
            same = generate_with_source(source_model, engine, images, question, never) == generate_with_engine(
                engine, images, [], question
            )
            failures += not same
            print(f"{name}: the source's tokens are {'equal' if same else 'NOT equal'}", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
