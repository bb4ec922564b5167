"""The ablation: which part of the method does what, at a scale that one machine can repeat.

`records` is what a finished run leaves, `stats` the intervals and verdicts, `claims` what is judged, `report` the
Markdown. Imports nothing by itself, so that the command line starts fast. Used by `pvc.cli` and readers of run files.
"""
