"""Latency of subnets: measured, or predicted from measured blocks."""
from mmbignas.latency.backends import Backend
from mmbignas.latency.build_table import build_latency_table
from mmbignas.latency.latency_predictor import LatencyPredictor
from mmbignas.latency.measurement import BACKENDS, Latency, build_backend, measure_latency
from mmbignas.latency.table import LatencyTable
from mmbignas.latency.timing import Timing, measure

__all__ = ['BACKENDS', 'Backend', 'Latency', 'LatencyPredictor', 'LatencyTable', 'Timing', 'build_backend',
           'build_latency_table', 'measure', 'measure_latency']
