"""The region proposal network of two-stage detectors, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.dense_heads import RPNHead
from torch import Tensor

from mmbignas.models.blocks import ConvTower
from mmbignas.models.dense_heads.big_retina_head import TOWER_ELEMENTS
from mmbignas.models.layers import build_conv
from mmbignas.ops import shared_weights
from mmbignas.registry import MODELS
from mmbignas.utils.rules import check_keys


@MODELS.register_module()
class BigRPNHead(RPNHead):
    """RPN (arXiv 1506.01497) with a tower of any depth, width and kernel size in place of its one convolution.

    The pyramid levels share the tower's convolutions; each has its own normalisations. Scores and boxes are computed
    from the same tower. With ``tower=dict(depth=[1], out_channel=[256], kernel_size=[3])`` and without ``norm_cfg`` it
    is MMDetection's RPN.

    Args:
        in_channels: greatest input width.
        tower: ``dict(depth=..., out_channel=..., kernel_size=...)``, each a list of one value or
            ``dict(space=..., sample_strategy=...)``.
        conv_cfg, norm_cfg: as in mmcv; see :class:`~mmbignas.models.BigResNet`.
        **kwargs: of MMDetection's ``RPNHead``, without ``num_convs`` and ``feat_channels``, which ``tower`` says.

    Raises:
        ConfigError: for a space that no subnet could be drawn from.
    """

    def __init__(self, in_channels: int, tower: Mapping[str, Any], conv_cfg: Mapping[str, Any] | None = None,
                 norm_cfg: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        check_keys(tower, 'BigRPNHead.tower', TOWER_ELEMENTS, TOWER_ELEMENTS)
        self._tower_cfg, self._layer_cfgs = tower, dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        super().__init__(in_channels, **kwargs)

    def _init_layers(self) -> None:
        self.tower = ConvTower(self.in_channels, num_levels=self.prior_generator.num_levels, **self._tower_cfg,
                               **self._layer_cfgs, key='BigRPNHead.tower')
        for name, outputs in (('rpn_cls', self.cls_out_channels), ('rpn_reg', self.bbox_coder.encode_size)):
            setattr(self, name, build_conv(self.tower.out_channels, (self.num_base_priors * outputs,), (1,),
                                           dynamic=self.tower.is_supernet, bias=True))

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the raw outputs of all levels.

        Args:
            x: one tensor ``(N, C, H, W)`` per level, from fine to coarse.

        Returns:
            tuple: objectness logits, ``(N, A, H, W)`` per level, and box deltas, ``(N, A * 4, H, W)`` per level, with
            ``A`` anchors per location.
        """
        feats = self.tower(x)
        with shared_weights(self.rpn_cls, self.rpn_reg):
            return [self.rpn_cls(feat) for feat in feats], [self.rpn_reg(feat) for feat in feats]
