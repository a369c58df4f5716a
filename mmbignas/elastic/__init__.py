"""Elastic: any model of MMDetection or MMPretrain as a supernet, by config, from its own checkpoint."""
from mmbignas.elastic.builder import Elastic, make_supernet
from mmbignas.elastic.cut import build_cut, cut_network
from mmbignas.elastic.cutting import cut_arguments, cut_state
from mmbignas.elastic.plan import Plan
from mmbignas.elastic.planning import make_plan
from mmbignas.elastic.sorting import SortedCheckpoint, sort_channels

__all__ = ['Elastic', 'Plan', 'SortedCheckpoint', 'build_cut', 'cut_arguments', 'cut_network', 'cut_state', 'make_plan',
           'make_supernet', 'sort_channels']
