"""Compare the tokens and peak memory that `Engine.plan` predicts with measurements, each case in a new process.

    python benchmarks/plan.py                    all cases, as a Markdown table
    python benchmarks/plan.py nano-video-96      one case

Memory is the growth of the process's resident set while `Engine.encode` runs for the second time. Its maximum is reset
through /proc/self/clear_refs before, which requires Linux. It is measured twice: with the C library's default, which
retains freed blocks below 32 MiB (resident), and with every freed block returned at once (live). Models: the bundled
one, and four layers (two temporal) in the shape of InternViT-300M (width 1024, 448 px) with random weights.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# With these variables of glibc, every block of at least 32 KiB is a separate mapping.
RETURN_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "32768", "MALLOC_MMAP_MAX_": "1000000"}

# Model, frames (0: a picture), size (width, height), maximum tiles, steps.
CASES: dict[str, tuple[str, int, tuple[int, int], int, int]] = {
    "nano-video-8": ("nano", 8, (64, 64), 1, 1),
    "nano-video-32": ("nano", 32, (64, 64), 1, 1),
    "nano-video-96": ("nano", 96, (64, 64), 1, 1),
    "nano-video-512": ("nano", 512, (64, 64), 1, 1),
    "nano-picture": ("nano", 0, (64, 64), 1, 4),
    "nano-tiles": ("nano", 0, (640, 480), 12, 4),
    "nano-photograph": ("nano", 0, (4000, 3000), 1, 4),
    "300m-video-1": ("300m", 1, (448, 448), 1, 1),
    "300m-video-4": ("300m", 4, (448, 448), 1, 1),
    "300m-picture": ("300m", 0, (448, 448), 1, 4),
    "300m-tiles": ("300m", 0, (900, 450), 2, 2),
}


def build_engine(model: str) -> Any:
    """Build the engine of the bundled model ("nano") or of a slice of the 300M shape, on the CPU in float32."""
    import torch

    import pvc
    from pvc.engine.engine import Engine
    from pvc.model.config import PVCConfig, PVCVisionConfig
    from pvc.model.modeling import PVCForConditionalGeneration
    from pvc.testing import randomize, tiny_config, tiny_processor

    if model == "nano":
        return pvc.load(device="cpu", dtype="float32")
    tiny = tiny_config()
    config = PVCConfig(
        vision_config=PVCVisionConfig(attention_bias=True, num_hidden_layers=4, num_temporal_layers=2),
        text_config=tiny.text_config.to_dict(),
        image_token_id=tiny.image_token_id,
        video_token_id=tiny.video_token_id,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    network = PVCForConditionalGeneration(config)
    randomize(network)  # nothing is zero, so nothing is skipped
    return Engine(network.eval(), tiny_processor(config, max_tiles=12, num_frames=16), None)


def write_medium(folder: Path, frames: int, size: tuple[int, int]) -> Path:
    """Write a file of noise, in which no two frames are equal.

    Args:
        folder: the folder to write to.
        frames: number of frames of the video; 0 for a picture.
        size: width and height in pixels.

    Returns:
        Path of the file.
    """
    import numpy as np
    from PIL import Image

    from pvc.media import write_video

    noise = np.random.default_rng(0).integers(0, 256, (max(frames, 1), size[1], size[0], 3), dtype=np.uint8)
    path = folder / ("clip.mp4" if frames else "picture.png")
    if frames:
        write_video(path, noise, fps=4)
    else:
        Image.fromarray(noise[0]).save(path)
    return path


def read_status(field: str) -> int:
    """Read a field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def measure(name: str, threads: int) -> dict[str, Any]:
    """Measure a case in this process.

    Args:
        name: a key of CASES.
        threads: number of CPU threads.

    Returns:
        Pairs of predicted and measured values by name.
    """
    import torch

    from pvc.engine.options import MediaOptions

    torch.set_num_threads(threads)
    model, frames, size, tiles, steps = CASES[name]
    engine = build_engine(model)
    options = MediaOptions(frames=frames or None, max_tiles=tiles, image_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        path = write_medium(Path(folder), frames, size)
        plan = engine.plan(path, options=options)
        opened = [engine.open(path, plan.options[0])]
    engine.encode(opened, plan.options)  # the first call allocates the scratch space of the kernels
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = read_status("VmRSS")
    encoded = engine.encode(opened, plan.options)
    resident = read_status("VmHWM") - before
    return {
        "case": name,
        "what": str(plan.choices[0]).partition(": ")[2],
        "tokens": (plan.tokens, len(encoded[0].tokens)),
        "bytes": (plan.memory_bytes, resident),
    }


def main() -> None:
    """Run every case in two new processes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)}; by default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="measure one case in this process, and print JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.cases[0], options.threads)))
        return
    import torch

    print(f"{options.threads} thread(s); torch {torch.__version__}, Python {platform.python_version()}\n")
    columns = (
        "case",
        "what",
        "tokens: plan, real",
        "MiB resident: plan, real",
        "error",
        "MiB live: plan, real",
        "error",
    )
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    for name in options.cases or CASES:
        command = [sys.executable, __file__, name, "--here", "--threads", str(options.threads)]
        live, row = (
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
            for env in ({**os.environ, **RETURN_AT_ONCE}, None)
        )
        cells = [name, row["what"], "{}, {}".format(*row["tokens"])]
        for planned, real in (row["bytes"], live["bytes"]):
            cells += [f"{planned / 2**20:.1f}, {real / 2**20:.1f}", f"{planned / real - 1:+.0%}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
