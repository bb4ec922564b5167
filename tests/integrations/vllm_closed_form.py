"""Greedy tokens of a checkpoint in closed form, in vLLM, transformers, the server and our engine, beside its source's.

    python -m tests.integrations.vllm_closed_form        in an environment with vLLM (make test-vllm)

The source is a tiny InternVL with random weights in transformers' format. Its own greedy tokens are the reference.
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
from tests.integrations.vllm_tokens import LENGTH, cases, compare, messages, of_engine

# vLLM's CPU attention takes heads of 32 and more.
TEXT = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 192}


def of_source(theirs, engine, images, question, never):
    """The source's own model on the same pixels and ids."""
    asked = messages(images, [], question)
    filled = iter(images)
    for part in asked[0]["content"]:
        if part["type"] == "image":
            part["image"] = next(filled)
    batch = engine.processor.apply_chat_template([asked], tokenize=True, add_generation_prompt=True)
    made = theirs.generate(
        input_ids=batch["input_ids"],
        pixel_values=batch["pixel_values"],
        max_new_tokens=LENGTH,
        do_sample=False,
        suppress_tokens=never,
    )
    return made[0, batch["input_ids"].shape[1] :].tolist()


def main():
    from vllm import LLM

    torch.set_num_threads(1)
    sources.TEXT.update(TEXT)
    with tempfile.TemporaryDirectory() as folder:
        source = sources.transformers_format(Path(folder, "source"), vision={"initializer_range": 1e-10})
        target = Path(folder, "pvc")
        convert(source, target)
        engine = pvc.load(target, device="cpu", dtype=torch.float32)
        theirs = InternVLForConditionalGeneration.from_pretrained(source).eval()
        llm = LLM(
            str(target),
            dtype="float32",
            max_model_len=2048,
            max_num_batched_tokens=2048,
            limit_mm_per_prompt={"image": 4, "video": 4},
            enforce_eager=True,
        )
        every = [case for case in cases() if case[1] and not case[2]]
        tokenizer = engine.processor.tokenizer
        never = [engine.processor.image_token_id, engine.processor.video_token_id, tokenizer.eos_token_id]
        wrong = compare(engine, llm, every, never, ", closed form")
        for name, images, _, question in every:
            same = of_source(theirs, engine, images, question, never) == of_engine(engine, images, [], question)
            wrong += not same
            print(f"{name}: the source's tokens are {'equal' if same else 'NOT equal'}", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
