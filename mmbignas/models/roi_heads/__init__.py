"""The second stage of two-stage detectors."""
from mmbignas.models.roi_heads.big_bbox_head import BigBBoxHead
from mmbignas.models.roi_heads.big_roi_extractor import BigRoIExtractor

__all__ = ['BigBBoxHead', 'BigRoIExtractor']
