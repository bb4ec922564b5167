"""Conversion of InternVL checkpoints to PVC, and back if the PVC checkpoint still computes what InternVL does."""

from pvc.convert.from_internvl import convert
from pvc.convert.options import ConversionReport, Options
from pvc.convert.source import read_source
from pvc.convert.to_internvl import convert_to_internvl

__all__ = ["ConversionReport", "Options", "convert", "convert_to_internvl", "read_source"]
