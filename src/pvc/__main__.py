"""`python -m pvc` is `pvc`."""

from pvc.cli.main import run

if __name__ == "__main__":
    run()
