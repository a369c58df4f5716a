"""Pictures and tables for people."""
from mmbignas.analysis.accuracy_page import write_page
from mmbignas.analysis.accuracy_plots import draw_accuracy
from mmbignas.analysis.accuracy_sample import AccuracySample, EvaluatedSubnet, pareto_front
from mmbignas.analysis.cost_plots import draw_macs, draw_macs_params
from mmbignas.analysis.cost_sample import CostSample
from mmbignas.analysis.detections import draw_subnets

__all__ = ['AccuracySample', 'CostSample', 'EvaluatedSubnet', 'draw_accuracy', 'draw_macs', 'draw_macs_params',
           'draw_subnets', 'pareto_front', 'write_page']
