"""Study the method at small scale: synthetic tasks, accuracy on them, the ablation. Only `pvc.cli` imports it."""
