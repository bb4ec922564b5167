"""Ablation study: the contribution of each part of the method, at a scale that one machine can repeat.

`plan` reads the study, `run` trains and measures its arms, `records` has the files of finished runs, `stats` the
intervals and verdicts, `claims` the judged claims, and `report` the Markdown. This file imports nothing, so that the
command line starts fast. Called by `pvc lab ablate`.
"""
