"""The box head of two-stage detectors, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor

from mmbignas.models.blocks import LinearTower
from mmbignas.models.layers import build_linear
from mmbignas.registry import MODELS
from mmbignas.utils.rules import check_keys

FC_ELEMENTS = ('depth', 'out_channel')


@MODELS.register_module()
class BigBBoxHead(BBoxHead):
    """Class and box of each region, from hidden layers of any number and width.

    With ``fcs=dict(depth=[2], out_channel=[1024])`` it is MMDetection's ``Shared2FCBBoxHead``.

    Args:
        in_channels: greatest width of the regions' features.
        fcs: the hidden layers, ``dict(depth=..., out_channel=...)``, each a list of one value or
            ``dict(space=..., sample_strategy=...)``.
        **kwargs: of MMDetection's ``BBoxHead``, without ``with_avg_pool``.

    Raises:
        ConfigError: for a space that no subnet could be drawn from.
    """

    def __init__(self, in_channels: int, fcs: Mapping[str, Any], init_cfg: Any = None, **kwargs: Any) -> None:
        check_keys(fcs, 'BigBBoxHead.fcs', FC_ELEMENTS, FC_ELEMENTS)
        super().__init__(in_channels=in_channels, init_cfg=init_cfg, **kwargs)
        self.fcs = LinearTower(in_channels * self.roi_feat_area, **fcs, act_cfg=dict(type='ReLU'),
                               key='BigBBoxHead.fcs')
        dynamic = self.fcs.search_space.is_supernet
        for name in ('fc_cls', 'fc_reg'):
            if hasattr(self, name):
                setattr(self, name, build_linear(self.fcs.out_channels, getattr(self, name).out_features,
                                                 dynamic=dynamic))
        if init_cfg is None:
            self.init_cfg += [dict(type='Xavier', distribution='uniform', override=dict(name='fcs'))]

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Class logits and box deltas of regions.

        Args:
            x: features of ``K`` regions, ``(K, C, *roi_feat_size)``.

        Returns:
            tuple: ``(K, num_classes + 1)``, the last one for the background, and ``(K, num_classes * 4)``, or
            ``(K, 4)`` with ``reg_class_agnostic``; ``None`` without ``with_cls`` or ``with_reg``.
        """
        x = self.fcs(x.flatten(1))
        return self.fc_cls(x) if self.with_cls else None, self.fc_reg(x) if self.with_reg else None
