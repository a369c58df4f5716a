"""Latency of subnets: measured, or predicted from measured blocks."""
from mmbignas.cost.latency.backends import Backend
from mmbignas.cost.latency.build import build_latency_table
from mmbignas.cost.latency.network import BACKENDS, Latency, build_backend, measure_latency
from mmbignas.cost.latency.predictor import LatencyPredictor
from mmbignas.cost.latency.table import LatencyTable
from mmbignas.cost.latency.timing import Timing, measure

__all__ = ['BACKENDS', 'Backend', 'Latency', 'LatencyPredictor', 'LatencyTable', 'Timing', 'build_backend',
           'build_latency_table', 'measure', 'measure_latency']
