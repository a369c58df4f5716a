"""Pictures and tables for people."""
from mmbignas.analysis.detections import draw_detections

__all__ = ['draw_detections']
