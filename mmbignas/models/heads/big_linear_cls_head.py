"""A linear classifier's head, as part of a supernet or of one network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmbignas.errors import ConfigError
from mmbignas.models.blocks import LinearTower
from mmbignas.models.layers import build_linear
from mmbignas.registry import MODELS

HIDDEN_ELEMENTS = ('depth', 'out_channel')


@MODELS.register_module()
class BigLinearClsHead(ClsHead):
    """MMPretrain's ``LinearClsHead`` for features of changing width, with hidden layers where there are to be some.

    It is dynamic if ``in_channels`` or an element of ``hidden`` is a space; else it consists of plain torch layers.
    Settings of the hidden layers stand under ``hidden``. Parameters are called as in MMPretrain, with ``hidden.0.fc``,
    ``hidden.1.fc``, ... for hidden layers.

    Args:
        num_classes: number of classes.
        in_channels: width of the features; behind a backbone of changing width
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
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ConfigError(f'BigLinearClsHead.num_classes: {num_classes!r} is not allowed; allowed: integers from 1')
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ConfigError(f'BigLinearClsHead.dropout: {dropout!r} is not allowed; allowed: numbers from 0 to '
                              'below 1')
        if hidden is not None and (not isinstance(hidden, Mapping) or set(hidden) != set(HIDDEN_ELEMENTS)):
            raise ConfigError(f'BigLinearClsHead.hidden: expected a dict of {", ".join(HIDDEN_ELEMENTS)}, got {hidden}')
        self.num_classes = num_classes
        self._labels_checked = False
        width, dynamic = _read_width(in_channels)
        self.hidden = None
        if hidden is not None:
            if dynamic and not any(isinstance(element, Mapping) for element in hidden.values()):
                raise ConfigError('BigLinearClsHead.hidden: lists alone are not allowed with a space as in_channels; '
                                  'allowed: out_channel=dict(space=dict(min=[x], max=[x])) in place of [x]')
            self.hidden = LinearTower(width, **hidden, act_cfg=act_cfg or dict(type='SiLU'),
                                      key='BigLinearClsHead.hidden')
            width, dynamic = self.hidden.out_channels, self.hidden.search_space.is_supernet
        self.dropout = nn.Dropout(dropout)
        self.fc = build_linear(width, num_classes, dynamic=dynamic)

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """What the last layer is given.

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
            raise ConfigError(f'BigLinearClsHead.num_classes: {self.num_classes} is not allowed with the data, which '
                              f'has the label {wrong[0]}; allowed: labels from 0 to {self.num_classes - 1}')
        return super()._get_loss(cls_score, data_samples, **kwargs)


def _read_width(in_channels: Any) -> tuple[int, bool]:
    """The greatest width of the input, and whether it is given as a space."""
    space = in_channels.get('space') if isinstance(in_channels, Mapping) and set(in_channels) == {'space'} else None
    values: list[Any] = [in_channels]
    if isinstance(space, Mapping) and set(space) == {'min', 'max'}:
        values = [*space['min'], *space['max']] if all(
            isinstance(value, Sequence) and len(value) == 1 for value in space.values()) else []
    if not values or any(isinstance(value, bool) or not isinstance(value, int) or value < 1
                         for value in values) or values[0] > values[-1]:
        raise ConfigError(f'BigLinearClsHead.in_channels: {in_channels!r} is not allowed; allowed: an integer from 1, '
                          'or dict(space=dict(min=[...], max=[...])) with one integer each, the second not below the '
                          'first')
    return values[-1], space is not None
