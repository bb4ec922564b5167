"""Conversion of InternVL checkpoints to PVC ones, and back where nothing of PVC's own is in the way."""

from pvc.convert.from_internvl import convert
from pvc.convert.options import Options, Report
from pvc.convert.source import read_source
from pvc.convert.to_internvl import convert_back

__all__ = ["Options", "Report", "convert", "convert_back", "read_source"]
