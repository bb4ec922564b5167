"""An independent test of the bundled model: ordinary questions about simple pictures and clips.

Shares no code, font, word list or phrasing with `pvc.lab.synthetic`. Run with `python -m benchmarks.nano_suite`.
"""
