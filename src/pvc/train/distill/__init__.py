"""Stages of kind `distill`: a converted checkpoint learns from its base, without labels.

`pvc.train.pipeline` calls `setup.py`; `defaults.py` builds the recipe of `pvc distill`.
"""
