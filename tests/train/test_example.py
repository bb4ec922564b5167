"""The documented way from an InternVL checkpoint to an answer, as printed in docs/training.md."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_convert_train_ask(tmp_path):
    command = [sys.executable, "examples/finetune.py", str(tmp_path / "work")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    ran = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ pvc ")]
    assert ran == ["convert", "lab", "lab", "data", "ask", "train", "train", "ask"]
    assert "closed form: residual" in done.stdout
    assert "logits: largest difference" in done.stdout
    assert "24 good (24 video)" in done.stdout
    assert (tmp_path / "work" / "run" / "model" / "README.md").exists()
    assert "examples/finetune.py" in (ROOT / "docs" / "training.md").read_text()
