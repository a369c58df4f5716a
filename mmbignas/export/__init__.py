"""A subnet as a folder, as ONNX and as .pt2."""
from mmbignas.export.box_comparison import BoxCheck
from mmbignas.export.comparison import ExportCheck
from mmbignas.export.detection import DetectionNetwork
from mmbignas.export.network import Network, check_plain
from mmbignas.export.onnx import check_opset, export_onnx
from mmbignas.export.pt2 import export_pt2

__all__ = ['BoxCheck', 'DetectionNetwork', 'ExportCheck', 'Network', 'check_opset', 'check_plain', 'export_onnx',
           'export_pt2']
