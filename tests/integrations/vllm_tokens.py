"""Greedy tokens of vLLM, transformers and the server beside those of our engine, on the bundled model in float32.

    python -m tests.integrations.vllm_tokens        in an environment with vLLM (make test-vllm)

Prints a table; exits with 1 where any case differs.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import pvc
import pvc.auto
from pvc.engine.batch import Batch
from pvc.engine.draw import Drawing
from pvc.media import Sampling, load

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LENGTH = 24


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
        rows.append(batch.start(asked, encoded, Drawing(max_new_tokens=LENGTH))[0][0])
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
    never = [processor.image_token_id, processor.video_token_id]
    made = engine.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, suppress_tokens=never)
    return made[0, inputs["input_ids"].shape[1] :].tolist()


def of_vllm(llm, processor, every):
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
                        "fps": 1.0,
                        "duration": float(times[-1]) + 1,
                        "total_num_frames": len(frames),
                        "frames_indices": list(range(len(frames))),
                        "timestamps": times,
                        "video_backend": "pvc",
                        "do_sample_frames": False,
                    },
                )
                for frames, times in videos
            ]
        prompts.append({"prompt": text, **({"multi_modal_data": data} if data else {})})
    never = [processor.image_token_id, processor.video_token_id]
    sampling = SamplingParams(temperature=0, max_tokens=LENGTH, logit_bias=dict.fromkeys(never, -100.0))
    return [list(out.outputs[0].token_ids) for out in llm.generate(prompts, sampling)]


def main():
    from vllm import LLM

    torch.set_num_threads(1)
    engine = pvc.load(device="cpu", dtype=torch.float32)
    every = cases()
    expected = [of_engine(engine, *case[1:]) for case in every]
    llm = LLM(
        str(ROOT / "src" / "pvc" / "nano"),
        dtype="float32",
        max_model_len=2048,
        max_num_batched_tokens=2048,
        limit_mm_per_prompt={"image": 4, "video": 4},
        enforce_eager=True,
    )
    ways = {
        "transformers": [of_transformers(engine, *case[1:]) for case in every],
        "server": of_batch(engine, every),
        "vLLM": of_vllm(llm, engine.processor, every),
    }
    end = engine.processor.tokenizer.eos_token_id
    print(f"| case | engine | {' | '.join(ways)} |\n|---|---|{'---|' * len(ways)}")
    wrong = 0
    for place, (case, one) in enumerate(zip(every, expected, strict=True)):
        equal = [[token for token in got[place] if token != end] == one for got in ways.values()]
        wrong += not all(equal)
        text = repr(engine.processor.tokenizer.decode(one))
        print(f"| {case[0]} | {text}, {len(one)} tokens | {' | '.join('equal' if same else 'NOT' for same in equal)} |")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
