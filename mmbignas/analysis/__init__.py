"""Pictures and tables for people."""
from mmbignas.analysis.cost_plots import draw_macs, draw_macs_params
from mmbignas.analysis.cost_sample import CostSample
from mmbignas.analysis.detections import draw_subnets

__all__ = ['CostSample', 'draw_macs', 'draw_macs_params', 'draw_subnets']
