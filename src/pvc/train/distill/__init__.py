"""Stages of kind `distill`: a converted checkpoint learns from its own base, without labels.

`setup.py` is what `pvc.train.pipeline` calls; `defaults.py` builds the recipe of `pvc distill`.
"""
