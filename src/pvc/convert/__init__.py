"""Conversion of InternVL checkpoints to PVC ones, and back where nothing of PVC's own is in the way."""

from pvc.convert.from_internvl import convert
from pvc.convert.options import ConversionReport, Options
from pvc.convert.source import read_source
from pvc.convert.to_internvl import convert_to_internvl

__all__ = ["ConversionReport", "Options", "convert", "convert_to_internvl", "read_source"]
