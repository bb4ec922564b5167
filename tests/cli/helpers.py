"""Runs `pvc` in a fresh process, as a user does."""

import subprocess
import sys


def run(*arguments, stdin="", timeout=120, check=None, env=None):
    """Finished process of `python -m pvc arguments`; `check` is the exit code it must have."""
    done = subprocess.run(
        [sys.executable, "-m", "pvc", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
    )
    if check is not None:
        assert done.returncode == check, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done
