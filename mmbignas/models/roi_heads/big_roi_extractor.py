"""Features of regions, for pyramids of changing width."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from mmbignas.registry import MODELS


@MODELS.register_module()
class BigRoIExtractor(SingleRoIExtractor):
    """MMDetection's ``SingleRoIExtractor`` for pyramids of changing width.

    Args:
        roi_layer, featmap_strides, finest_scale: as there.
        out_channels: greatest width of the pyramid.
        **kwargs: as there.
    """

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Any:
        """Features of regions.

        Args:
            feats: one tensor ``(N, C, H, W)`` per level, from fine to coarse.
            rois: ``(K, 5)``: number of the image, and the corners of the region in pixels.
            roi_scale_factor: by which regions grow before they are looked at.

        Returns:
            Tensor: of shape ``(K, C, *roi_layer.output_size)``.
        """
        self.out_channels = feats[0].shape[1]
        return super().forward(feats, rois, roi_scale_factor)
