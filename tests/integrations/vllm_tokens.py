"""Greedy tokens of vLLM, transformers and the server beside those of our engine, on the bundled model in float32.

    python -m tests.integrations.vllm_tokens        in an environment with vLLM (make test-vllm)

Prints a table; exits with 1 where any case differs. The bundled model's answers are short, so that every case is also
gone through with an end that is not allowed: 48 tokens of whatever comes then.
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
from pvc.engine.sampling import SamplingParams
from pvc.media import Sampling, load

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LENGTH = 48


def cases():
    """Name, pictures, videos (frames and their times) and question."""
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


def messages(images, videos, question):
    parts = [{"type": "image"} for _ in images] + [{"type": "video"} for _ in videos]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def of_engine(engine, images, videos, question):
    shown = [*images, *(pvc.media.Video(frames, tuple(times)) for frames, times in videos)]
    chat = engine.chat()
    chat.ask(question, media=shown, max_new_tokens=LENGTH)
    return list(chat.messages[-1]["content"][0]["tokens"])


def of_batch(engine, every):
    """What the server does: all of them in one batch."""
    batch, rows = Batch(engine), []
    for _, images, videos, question in every:
        shown = [*images, *(pvc.media.Video(frames, tuple(times)) for frames, times in videos)]
        encoded = engine.encode([engine.open(item) for item in shown])
        asked = messages(images, videos, question)
        for part in asked[0]["content"]:
            if part["type"] != "text":
                part[part["type"]] = "shown"
        rows.append(batch.start(asked, encoded, SamplingParams(max_new_tokens=LENGTH))[0][0])
    while batch.rows:
        batch.step()
    return [row.tokens for row in rows]


def of_transformers(engine, images, videos, question):
    """`generate`, as anybody calls it."""
    processor = engine.processor
    filled = iter([{"image": image} for image in images] + [{"video": video} for video in videos])
    asked = messages(images, videos, question)
    for part in asked[0]["content"]:
        if part["type"] != "text":
            part.update(next(filled))
    for part in asked[0]["content"]:
        if part["type"] == "video":
            frames, times = part["video"]
            part["video"] = pvc.media.Video(frames, tuple(times))
    inputs = processor.apply_chat_template([asked], tokenize=True, add_generation_prompt=True, do_sample_frames=False)
    never = engine.model.generation_config.suppress_tokens
    made = engine.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, suppress_tokens=never)
    return made[0, inputs["input_ids"].shape[1] :].tolist()


def of_vllm(llm, processor, every, never):
    from vllm import SamplingParams

    prompts = []
    for _, images, videos, question in every:
        text = processor.apply_chat_template(
            messages(images, videos, question), add_generation_prompt=True, tokenize=False
        )
        data = {}
        if images:
            data["image"] = images
        if videos:
            data["video"] = [
                (
                    np.asarray(frames),
                    {
                        "fps": 24.0,  # of both examples: what vLLM's own readers would say
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


def of_files(engine, llm):
    """Videos as bytes in chat messages, which vLLM reads by our reader. Returns how many differ from our engine."""
    from vllm import SamplingParams

    wrong = 0
    never = engine.model.generation_config.suppress_tokens
    sampling = SamplingParams(temperature=0, max_tokens=LENGTH, logit_bias=dict.fromkeys(never, -100.0))
    for name, question in (("digits.mp4", "which digits are shown?"), ("shapes.mp4", "which way does it move?")):
        data = (EXAMPLES / name).read_bytes()
        url = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
        parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
        (out,) = llm.chat([{"role": "user", "content": parts}], sampling)
        got = list(out.outputs[0].token_ids)
        chat = engine.chat()
        chat.ask(question, media=[data], max_new_tokens=LENGTH)
        same = got == list(chat.messages[-1]["content"][0]["tokens"]) and len(got) == LENGTH
        wrong += not same
        print(
            f"{name} as bytes, no end: {'equal' if same else 'NOT equal'}, {len(out.prompt_token_ids)} ids", flush=True
        )
    return wrong


def main():
    from vllm import LLM

    torch.set_num_threads(1)
    engine = pvc.load(device="cpu", dtype=torch.float32)
    every = cases()
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
    wrong = compare(engine, llm, every, never, "")
    wrong += compare(engine, llm, every, [*never, processor.tokenizer.eos_token_id], ", no end")
    wrong += of_files(engine, llm)
    sys.exit(wrong > 0)


def compare(engine, llm, every, never, what):
    """Print a table; returns how many cases differ."""
    engine.model.generation_config.suppress_tokens = never
    expected = [of_engine(engine, *case[1:]) for case in every]
    ways = {
        "transformers": [of_transformers(engine, *case[1:]) for case in every],
        "server": of_batch(engine, every),
        "vLLM": of_vllm(llm, engine.processor, every, never),
    }
    end = engine.processor.tokenizer.eos_token_id
    print(f"| case | engine | {' | '.join(ways)} |\n|---|---|{'---|' * len(ways)}")
    wrong = 0
    for place, (case, one) in enumerate(zip(every, expected, strict=True)):
        equal = [[token for token in got[place] if token != end] == one for got in ways.values()]
        wrong += not all(equal) or (bool(what) and len(one) < LENGTH)
        text = repr(engine.processor.tokenizer.decode(one[:12]))
        told = " | ".join("equal" if same else "NOT" for same in equal)
        print(f"| {case[0]}{what} | {text}, {len(one)} tokens | {told} |", flush=True)
    return wrong


if __name__ == "__main__":
    main()
