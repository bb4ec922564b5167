"""Compare greedy tokens of vLLM, transformers and the server with the engine's, on the bundled model in float32.

    python -m tests.integrations.vllm_tokens        in an environment with vLLM (make test-vllm)

Prints a table, and exits with 1 if any case differs. The bundled model's answers are short. Every case is therefore
also run with the end token forbidden, which gives 48 tokens.
"""

import base64
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import pvc
import pvc.auto
from pvc.engine.batch import Batch
from pvc.engine.options import SamplingParams
from pvc.media import Sampling, load

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LENGTH = 48


def build_cases():
    """List the cases: name, pictures, videos (frames and their times) and question."""
    sign, chart = (Image.open(EXAMPLES / name).convert("RGB") for name in ("sign.png", "chart.png"))
    small = sign.resize((64, 64))
    clips = []
    for name in ("digits.mp4", "shapes.mp4"):
        video = load(EXAMPLES / name, kind="video", sampling=Sampling(frames=8), size=(64, 64))
        clips.append((video.frames, list(video.timestamps)))
    return [
        ("text", [], [], "what does the sign say?"),
        ("image", [small], [], "what does the sign say?"),
        ("tiles", [sign], [], "Describe the picture."),
        ("two images", [sign, chart], [], "which bar is the tallest?"),
        ("video", [], clips[:1], "which digits are shown?"),
        ("two videos", [], clips, "which way does the red circle move?"),
        ("image and video", [small], clips[1:], "which way does the red circle move?"),
    ]


def build_messages(images, videos, question):
    """Build one user message with placeholders for the media."""
    parts = [{"type": "image"} for _ in images] + [{"type": "video"} for _ in videos]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def generate_with_engine(engine, images, videos, question):
    """Generate tokens with PVC's engine."""
    media = [*images, *(pvc.media.Video(frames, tuple(times)) for frames, times in videos)]
    chat = engine.chat()
    chat.ask(question, media=media, max_new_tokens=LENGTH)
    return list(chat.messages[-1]["content"][0]["tokens"])


def generate_with_batch(engine, cases):
    """Generate tokens of all cases in one batch, as the server does."""
    batch, rows = Batch(engine), []
    for _, images, videos, question in cases:
        media = [*images, *(pvc.media.Video(frames, tuple(times)) for frames, times in videos)]
        encoded = engine.encode([engine.open(item) for item in media])
        messages = build_messages(images, videos, question)
        for part in messages[0]["content"]:
            if part["type"] != "text":
                part[part["type"]] = "shown"
        rows.append(batch.start(messages, encoded, SamplingParams(max_new_tokens=LENGTH))[0][0])
    while batch.rows:
        batch.step()
    return [row.tokens for row in rows]


def generate_with_transformers(engine, images, videos, question):
    """Generate tokens with transformers' `generate`."""
    processor = engine.processor
    values = iter([{"image": image} for image in images] + [{"video": video} for video in videos])
    messages = build_messages(images, videos, question)
    for part in messages[0]["content"]:
        if part["type"] != "text":
            part.update(next(values))
    for part in messages[0]["content"]:
        if part["type"] == "video":
            frames, times = part["video"]
            part["video"] = pvc.media.Video(frames, tuple(times))
    inputs = processor.apply_chat_template(
        [messages], tokenize=True, add_generation_prompt=True, do_sample_frames=False
    )
    never = engine.model.generation_config.suppress_tokens
    output = engine.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, suppress_tokens=never)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def generate_with_vllm(llm, processor, cases, never):
    """Generate tokens of all cases with vLLM; the ids of `never` are forbidden."""
    from vllm import SamplingParams

    prompts = []
    for _, images, videos, question in cases:
        text = processor.apply_chat_template(
            build_messages(images, videos, question), add_generation_prompt=True, tokenize=False
        )
        data = {}
        if images:
            data["image"] = images
        if videos:
            data["video"] = [
                (
                    np.asarray(frames),
                    {
                        "fps": 24.0,  # of both examples, as vLLM's readers report it
                        "duration": float(times[-1]) + 1,
                        "total_num_frames": round(24 * times[-1]) + 1,
                        "frames_indices": [round(24 * time) for time in times],
                        "video_backend": "opencv",
                        "do_sample_frames": False,
                    },
                )
                for frames, times in videos
            ]
        prompts.append({"prompt": text, **({"multi_modal_data": data} if data else {})})
    sampling = SamplingParams(temperature=0, max_tokens=LENGTH, logit_bias=dict.fromkeys(never, -100.0))
    return [list(out.outputs[0].token_ids) for out in llm.generate(prompts, sampling)]


def compare_files(engine, llm):
    """Compare videos as bytes in chat messages, which vLLM reads with PVC's reader; returns the number of failures."""
    from vllm import SamplingParams

    failures = 0
    never = engine.model.generation_config.suppress_tokens
    sampling = SamplingParams(temperature=0, max_tokens=LENGTH, logit_bias=dict.fromkeys(never, -100.0))
    for name, question in (("digits.mp4", "which digits are shown?"), ("shapes.mp4", "which way does it move?")):
        data = (EXAMPLES / name).read_bytes()
        url = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
        parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
        (out,) = llm.chat([{"role": "user", "content": parts}], sampling)
        tokens = list(out.outputs[0].token_ids)
        chat = engine.chat()
        chat.ask(question, media=[data], max_new_tokens=LENGTH)
        same = tokens == list(chat.messages[-1]["content"][0]["tokens"]) and len(tokens) == LENGTH
        failures += not same
        print(
            f"{name} as bytes, no end: {'equal' if same else 'NOT equal'}, {len(out.prompt_token_ids)} ids", flush=True
        )
    return failures


def main():
    """Compare all cases, and exit with 1 if any differs."""
    from vllm import LLM

    torch.set_num_threads(1)
    engine = pvc.load(device="cpu", dtype=torch.float32)
    cases = build_cases()
    llm = LLM(
        str(ROOT / "src" / "pvc" / "nano"),
        dtype="float32",
        max_model_len=2048,
        max_num_batched_tokens=2048,
        limit_mm_per_prompt={"image": 4, "video": 4},
        enforce_eager=True,
        media_io_kwargs={"video": {"num_frames": 8, "size": 64}},
    )
    processor = engine.processor
    never = [processor.image_token_id, processor.video_token_id]
    failures = compare(engine, llm, cases, never, "")
    failures += compare(engine, llm, cases, [*never, processor.tokenizer.eos_token_id], ", no end")
    failures += compare_files(engine, llm)
    sys.exit(failures > 0)


def compare(engine, llm, cases, never, what):
    """Print a table of all cases; returns the number of failures."""
    engine.model.generation_config.suppress_tokens = never
    expected = [generate_with_engine(engine, *case[1:]) for case in cases]
    results = {
        "transformers": [generate_with_transformers(engine, *case[1:]) for case in cases],
        "server": generate_with_batch(engine, cases),
        "vLLM": generate_with_vllm(llm, engine.processor, cases, never),
    }
    end = engine.processor.tokenizer.eos_token_id
    print(f"| case | engine | {' | '.join(results)} |\n|---|---|{'---|' * len(results)}")
    failures = 0
    for index, (case, tokens_of_engine) in enumerate(zip(cases, expected, strict=True)):
        equal = [[token for token in tokens[index] if token != end] == tokens_of_engine for tokens in results.values()]
        failures += not all(equal) or (bool(what) and len(tokens_of_engine) < LENGTH)
        text = repr(engine.processor.tokenizer.decode(tokens_of_engine[:12]))
        cells = " | ".join("equal" if same else "NOT" for same in equal)
        print(f"| {case[0]}{what} | {text}, {len(tokens_of_engine)} tokens | {cells} |", flush=True)
    return failures


if __name__ == "__main__":
    main()
