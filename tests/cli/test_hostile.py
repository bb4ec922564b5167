"""Every odd and hostile file through `pvc ask`: as its manifest says, one line, the right exit code.

In one process with a tiny model for all files; in fresh processes, with time and memory, in the slow tests.
"""

import json
import subprocess
import sys
import time

import pytest

from pvc import media
from pvc.cli.main import main
from pvc.errors import MediaError
from tests.conftest import SHARED

MANIFEST = SHARED / "hostile" / "manifest.json"
ENTRIES = json.loads(MANIFEST.read_text())["files"] if MANIFEST.is_file() else []
MEDIA = [entry for entry in ENTRIES if entry["kind"] in ("image", "video")]


def allowed_codes(expected: str) -> set[int]:
    """Exit codes that a manifest's expectation allows: "ok ..." 0, "ok ... or 4xx" either, a status 3."""
    if expected.startswith(("ok", "partial")):
        return {0, 3} if " or 4" in expected else {0}
    return {0, 3} if " or ok" in expected else {3}


def test_the_manifest_is_understood(shared):
    assert len(MEDIA) > 60
    assert {tuple(sorted(allowed_codes(entry["expected"]))) for entry in MEDIA} == {(0,), (0, 3), (3,)}


@pytest.mark.parametrize("entry", MEDIA, ids=lambda entry: entry["file"])
def test_ask_about_a_hostile_file(entry, shared, checkpoint, capsys):
    path = shared / "hostile" / entry["file"]
    code = main(["ask", str(path), "what is it?", "--model", str(checkpoint), "--json"])
    output = capsys.readouterr()
    assert code in allowed_codes(entry["expected"]), output.err
    assert "Traceback" not in output.err
    if code == 0:
        described = json.loads(output.out)["media"][0]
        assert described["tokens"] > 0
        assert ("partial_decode" in " ".join(described["warnings"])) is entry["expected"].startswith("partial")
    else:
        assert output.out == ""
        assert output.err.startswith("pvc: ")
        assert output.err.count("\n") == 1


PROBE = """
import sys, time
started = time.perf_counter()
from pvc.cli.main import main
code = main(sys.argv[1:])
took = time.perf_counter() - started
# Not getrusage: its maximum survives exec and would be the test runner's.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("MEASURED", code, round(took, 3), peak, "torch" in sys.modules, file=sys.stderr)
"""


def measured(*arguments):
    """Exit code, seconds, peak KiB and whether torch was imported, of a fresh process."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    wall = time.perf_counter() - started
    line = next(line for line in done.stderr.splitlines() if line.startswith("MEASURED"))
    _, code, _, peak, torch = line.split()
    return int(code), wall, int(peak), torch == "True"


REFUSED = [entry for entry in MEDIA if allowed_codes(entry["expected"]) == {3}]


@pytest.mark.slow
@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry["file"])
def test_a_refused_file_costs_no_torch(entry, shared, checkpoint):
    code, wall, peak, torch = measured("ask", shared / "hostile" / entry["file"], "what is it?", "--model", checkpoint)
    assert code == 3
    assert not torch
    assert wall < 1.0 * 3, "a second, with room for a busy machine"
    assert peak < 100 * 1024, f"{peak / 1024:.0f} MiB"


@pytest.mark.slow
def test_an_accepted_file_adds_little(shared, checkpoint):
    """Opening any accepted file takes at most 2 s on top of start and model."""
    slow = {}
    for entry in MEDIA:
        if 0 in allowed_codes(entry["expected"]):
            started = time.perf_counter()
            try:
                media.load(shared / "hostile" / entry["file"], size=(448, 448))
            except MediaError:
                continue
            took = time.perf_counter() - started
            if took > 2:
                slow[entry["file"]] = round(took, 2)
    assert not slow
