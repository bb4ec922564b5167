"""Measure `pvc ask` in the shape of InternViT-300M (24 layers, width 1024, 448 px, 8 temporal) with random weights.

Writes a checkpoint to a temporary folder, and runs `pvc ask --json` for each file in a new process. Prints its report
and the peak memory of the process. The language model is tiny: this measures the vision path.

    python benchmarks/internvit_300m.py --max-tiles 2 --frames 4 picture.jpg video.mp4
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.testing import tiny_config, tiny_processor

RUN = """
import sys
from pvc.cli.main import main
code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def write_checkpoint(directory: Path) -> PVCConfig:
    """Write a checkpoint with the initial random weights; returns its configuration."""
    torch.manual_seed(0)
    tiny = tiny_config()
    config = PVCConfig(
        vision_config=PVCVisionConfig(attention_bias=True),
        text_config=tiny.text_config.to_dict(),
        image_token_id=tiny.image_token_id,
        video_token_id=tiny.video_token_id,
    )
    model = PVCForConditionalGeneration(config)
    model.save_pretrained(directory)
    tiny_processor(config, max_tiles=12, num_frames=16).save_pretrained(directory)
    return config


def main() -> None:
    """Write the checkpoint, and print one JSON line per file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="pictures and videos")
    parser.add_argument("--max-tiles", type=int, default=12)
    parser.add_argument("--frames", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = write_checkpoint(Path(folder))
        print(f"tokens per frame and step: {config.tokens_per_frame}", flush=True)
        for file in options.files:
            command = [sys.executable, "-c", RUN, "ask", file, "What is this?", "--model", folder, "--json"]
            command += ["--max-tiles", str(options.max_tiles), "--frames", str(options.frames)]
            started = time.perf_counter()
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            wall = time.perf_counter() - started
            answer = json.loads(result.stdout)
            medium = answer["media"][0]
            frames = medium["tiles"] * medium["steps"] if medium["kind"] == "image" else medium["frames"]
            row = {
                "file": Path(file).name,
                "kind": medium["kind"],
                "tiles": medium["tiles"],
                "steps": medium["steps"],
                "tokens": medium["tokens"],
                "tokens_per_frame_and_step": medium["tokens"] / frames,
                "timing": answer["timing"],
                "wall_s": round(wall, 1),
                "peak_MiB": int(result.stderr.split()[-1]) // 1024,
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
