"""Conversion of InternVL checkpoints to PVC ones, and back where nothing of PVC's own is in the way."""

from pvc.convert.back import convert_back
from pvc.convert.options import Options, Report
from pvc.convert.run import convert
from pvc.convert.sources import read_source

__all__ = ["Options", "Report", "convert", "convert_back", "read_source"]
