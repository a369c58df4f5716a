"""A linear classifier's head, as part of a supernet or of one network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmbignas.models.blocks import LinearTower
from mmbignas.models.layers import build_linear
from mmbignas.registry import MODELS
from mmbignas.utils.rules import check_keys, check_options, integer, must_be, number

HIDDEN_ELEMENTS = ('depth', 'out_channel')
WIDTH = integer(1)
RULES = dict(num_classes=integer(1), dropout=number(0, below=1))


@MODELS.register_module()
class BigLinearClsHead(ClsHead):
    """MMPretrain's ``LinearClsHead`` for features of changing width, with hidden layers if wanted.

    It is dynamic if ``in_channels`` or an element of ``hidden`` is a space; else it consists of plain torch layers.
    Settings of the hidden layers stand under ``hidden``. Parameters have the names of MMPretrain, with ``hidden.0.fc``,
    ``hidden.1.fc``, ... for hidden layers.

    Args:
        num_classes: number of classes.
        in_channels: width of the features; after a backbone of changing width
            ``dict(space=dict(min=[...], max=[...]))`` with one value each, of which the greatest counts.
        hidden: ``dict(depth=..., out_channel=...)``, each a list of one value or
            ``dict(space=..., sample_strategy=...)``; ``None`` for no hidden layers. The last layers of MobileNetV3 and
            AttentiveNAS are one of ``[1792, 1984]``.
        act_cfg: of the hidden layers, as in mmcv. Default: swish.
        dropout: of the last layer's input, when training.
        init_cfg: as in MMEngine.
        **kwargs: of MMPretrain's ``ClsHead``: ``loss``, ``topk``, ``cal_acc``.

    Raises:
        ConfigError: for a number of classes below 1, widths or a dropout that are not allowed, or a space that no
            subnet could be drawn from; in the first forward pass of a training, for a label that is
            none of the classes.
    """

    def __init__(self, num_classes: int, in_channels: int | Mapping[str, Any],
                 hidden: Mapping[str, Any] | None = None, act_cfg: Mapping[str, Any] | None = None,
                 dropout: float = 0., init_cfg: Any = None, **kwargs: Any) -> None:
        super().__init__(init_cfg=init_cfg or dict(type='Normal', layer='Linear', std=0.01), **kwargs)
        check_options('BigLinearClsHead', locals(), RULES)
        self.num_classes = num_classes
        self._labels_checked = False
        width, dynamic = _read_width(in_channels)
        self.hidden = None
        if hidden is not None:
            check_keys(hidden, 'BigLinearClsHead.hidden', HIDDEN_ELEMENTS, HIDDEN_ELEMENTS)
            if dynamic and not any(isinstance(element, Mapping) for element in hidden.values()):
                raise must_be('BigLinearClsHead.hidden', 'a supernet, as in_channels is a space (give out_channel as '
                              'dict(space=dict(min=[x], max=[x])) in place of [x])', hidden)
            self.hidden = LinearTower(width, **hidden, act_cfg=act_cfg or dict(type='SiLU'),
                                      key='BigLinearClsHead.hidden')
            width, dynamic = self.hidden.out_channels, self.hidden.search_space.is_supernet
        self.dropout = nn.Dropout(dropout)
        self.fc = build_linear(width, num_classes, dynamic=dynamic)

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """The input of the last layer.

        Args:
            feats: outputs of the neck, the last one of shape ``(N, C)``.
        """
        x = feats[-1]
        return self.dropout(x if self.hidden is None else self.hidden(x))

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits ``(N, num_classes)`` from the outputs of the neck, the last one of shape ``(N, C)``."""
        return self.fc(self.pre_logits(feats))

    def _get_loss(self, cls_score: Tensor, data_samples: Sequence[Any], **kwargs: Any) -> dict[str, Tensor]:
        labels = [sample.gt_label for sample in data_samples if 'gt_score' not in sample]
        wrong: list[int] = []
        if labels and not self._labels_checked:  # once, as a GPU has to wait for it
            wrong = [label for label in torch.cat(labels).tolist() if not 0 <= label < self.num_classes]
            self._labels_checked = True
        if wrong:
            raise must_be('labels of the data', f'from 0 to {self.num_classes - 1} with BigLinearClsHead.num_classes '
                          f'{self.num_classes}', wrong[0])
        return super()._get_loss(cls_score, data_samples, **kwargs)


def _read_width(in_channels: Any) -> tuple[int, bool]:
    """The greatest width of the input, and whether it is given as a space."""
    space = in_channels.get('space') if isinstance(in_channels, Mapping) and set(in_channels) == {'space'} else None
    values: list[Any] = [in_channels]
    if isinstance(space, Mapping) and set(space) == {'min', 'max'}:
        values = [*space['min'], *space['max']] if all(
            isinstance(value, Sequence) and len(value) == 1 for value in space.values()) else []
    if not values or not all(map(WIDTH.holds, values)) or values[0] > values[-1]:
        raise must_be('BigLinearClsHead.in_channels', f'{WIDTH.allowed}, or dict(space=dict(min=[low], max=[high])) of '
                      'such', in_channels)
    return values[-1], space is not None
