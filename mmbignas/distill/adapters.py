"""Trained layers between the widths of a student and a teacher."""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmbignas.ops import DynamicConv2d, DynamicLinear
from mmbignas.utils.rules import must_be


class Adapters(nn.Module):
    """Linear maps of the channels of a job's student outputs to the teacher's (FitNets, arXiv 1412.6550, section 2.2).

    A map is a 1x1 convolution for outputs ``(N, C, H, W)``, a linear layer for ``(N, C)``. A smaller subnet uses the
    first input channels of it. Outputs of a module that have the same widths, such as those of a head on all pyramid
    levels, share one. They serve training alone: no model, checkpoint of weights, or export has them.

    Args:
        key: the job's place in the config, for messages.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.layers = nn.ModuleDict()
        self._layer_of: dict[tuple[int, int], str] = {}

    def build(self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]]) -> None:
        """Create the layers for outputs like these.

        Args:
            student: outputs of each of the student's modules, at its largest widths.
            teacher: those of the teacher's modules.

        Raises:
            ConfigError: for outputs that differ in more than the number of channels.
        """
        for index, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
            if [(len(x), *x.shape[2:]) for x in ours] != [(len(y), *y.shape[2:]) for y in theirs] or any(
                    x.dim() not in (2, 4) for x in ours):
                raise must_be(f'{self.key}.mimic_name', 'modules with outputs (N, C) or (N, C, H, W) that differ in C '
                              "alone with widths='adapter'",
                              [[tuple(output.shape) for output in outputs] for outputs in (ours, theirs)])
            for call, (x, y) in enumerate(zip(ours, theirs)):
                name = f'{index}_{x.shape[1]}_{y.shape[1]}_{x.dim()}d'
                if name not in self.layers:
                    self.layers[name] = (DynamicLinear(x.shape[1], y.shape[1]) if x.dim() == 2 else
                                         DynamicConv2d(x.shape[1], y.shape[1], 1))
                self._layer_of[index, call] = name

    def forward(self, index: int, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Map the outputs of the student's module with this number in the job."""
        return [self.layers[self._layer_of[index, call]](x) for call, x in enumerate(outputs)]
