"""Entry point of the `pvc` script and of `python -m pvc`: ready for Ctrl-C before anything else is imported."""

import sys


def run() -> None:
    """Run the program and exit with its code."""
    try:
        from pvc.cli.main import main

        sys.exit(main())
    except KeyboardInterrupt:
        print("pvc: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
