"""Pictures and tables for people."""
from mmbignas.analysis.cost_plots import draw_macs, draw_macs_params
from mmbignas.analysis.cost_sample import CostSample
from mmbignas.analysis.detections import draw_detections

__all__ = ['CostSample', 'draw_detections', 'draw_macs', 'draw_macs_params']
