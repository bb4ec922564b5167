"""Greedy tokens of vLLM beside those of our engine and of transformers, on the bundled model in float32.

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
        ("text", [], [], "what is this?"),
        ("image", [small], [], "what does the sign say?"),
        ("tiles", [sign], [], "what does the sign say?"),
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
    ends = {processor.tokenizer.eos_token_id}
    return [
        [token for token in out.outputs[0].token_ids if token not in ends] for out in llm.generate(prompts, sampling)
    ]


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
    got = of_vllm(llm, engine.processor, every)
    print("| case | engine | vLLM | equal |\n|---|---|---|---|")
    for case, one, two in zip(every, expected, got, strict=True):
        texts = [repr(engine.processor.tokenizer.decode(tokens)) for tokens in (one, two)]
        print(f"| {case[0]} | {texts[0]} | {texts[1]} | {'yes' if one == two else 'NO'} |")
    sys.exit(any(one != two for one, two in zip(expected, got, strict=True)))


if __name__ == "__main__":
    main()
