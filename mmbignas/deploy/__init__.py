"""Ordinary networks as files that run without this package."""
from mmbignas.deploy.checks import BoxCheck, ExportCheck
from mmbignas.deploy.detection import DetectionNetwork
from mmbignas.deploy.files import check_new_file
from mmbignas.deploy.network import Network, check_plain
from mmbignas.deploy.onnx import check_opset, export_onnx
from mmbignas.deploy.pt2 import export_pt2

__all__ = ['BoxCheck', 'DetectionNetwork', 'ExportCheck', 'Network', 'check_new_file', 'check_opset', 'check_plain',
           'export_onnx', 'export_pt2']
