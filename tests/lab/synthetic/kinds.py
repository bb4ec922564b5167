"""Names of the tasks by what they render: scenes with levels and patch labels, or pages of any size."""

from __future__ import annotations

from pvc.lab.synthetic import TASKS
from pvc.lab.synthetic.seeding import SPLITS

SCENES = [name for name, task in TASKS.items() if not task.pages]
PAGES = [name for name, task in TASKS.items() if task.pages]
HELD_OUT_SPLITS = [split for split in SPLITS if split not in ("train", "train_all")]
