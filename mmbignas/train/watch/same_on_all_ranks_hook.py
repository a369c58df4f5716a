"""A check that all processes of a training do the same."""
from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather, get_world_size
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmbignas.registry import HOOKS
from mmbignas.train.sandwich_rule import SandwichRule
from mmbignas.utils.models import unwrapped
from mmbignas.utils.rules import boolean, check_options, integer

RULES = dict(interval=integer(1), weights=boolean())
# Integers as wide as the numbers of a parameter, by bytes.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@HOOKS.register_module()
class SameOnAllRanksHook(Hook):
    """Ends a training whose processes do not train the same subnets or do not hold the same weights.

    They do, as long as all read the same config and checkpoint and run the same code, and nothing else writes to the
    weights. Where they do not, gradients of different subnets would be averaged and nobody would notice. So the
    processes compare, before the first iteration of a run and every ``interval`` iterations, the number of the
    iteration, the subnets that it is going to train (with image sizes, and the candidates of ``best_up`` and
    ``worst_up``), and the bits of each parameter, summed. Nothing of the size of the weights is sent. With one process
    there is nothing to compare.

    :class:`~mmbignas.train.SandwichTrainLoop` adds this hook where the config has none. In a loop that trains no
    subnets the iteration and the weights are compared.

    Args:
        interval: iterations from one comparison to the next.
        weights: compare weights. On machines of different kinds the norm that gradients are clipped by may differ in
            its last bits, and with it, the weights; there, False lets them.

    Raises:
        ConfigError: for values that are not allowed.
    """

    def __init__(self, interval: int = 100, weights: bool = True) -> None:
        check_options('SameOnAllRanksHook', locals(), RULES)
        self.interval, self.weights = interval, weights
        self._begun = False

    def before_train(self, runner: Any) -> None:
        """Compare before the first iteration, whichever number it has."""
        self._begun = False

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Compare, if it is time. Raises RuntimeError in all processes, when one differs."""
        if get_world_size() == 1 or self._begun and runner.iter % self.interval:
            return
        self._begun = True
        names, sums = weight_sums(unwrapped(runner.model))
        own = sums.new_tensor([runner.iter, _subnets_hash(runner)])
        rows = torch.stack(all_gather(torch.cat([own, sums]))).tolist()
        where = f'iteration {runner.iter}'
        _compare([row[0] for row in rows], where, 'is in another iteration')
        _compare([row[1] for row in rows], where, 'trains other subnets')
        if self.weights:
            for index, name in enumerate(names, 2):
                _compare([row[index] for row in rows], where, f'has other weights in {name}')


def weight_sums(model: nn.Module) -> tuple[list[str], Tensor]:
    """The names of a model's parameters, and for each its bits, read as integers and summed.

    Parameters that are equal to the last bit have equal sums. These are 64-bit integers, which overflow in the same way
    everywhere.
    """
    names, sums = [], []
    for name, parameter in model.named_parameters():
        names.append(name)
        bits = parameter.detach().view(_INTEGERS[parameter.element_size()])
        sums.append(bits.sum(dtype=torch.int64))
    device = sums[0].device
    return names, torch.stack([value.to(device) for value in sums])


def _subnets_hash(runner: Any) -> int:
    """A hash of the subnets of the next iteration, that is the same in every process and on every machine."""
    loop = runner.train_loop
    if not isinstance(getattr(loop, 'rule', None), SandwichRule):
        return 0
    return zlib.crc32(repr(loop.rule.passes(loop.seed, runner.iter)).encode())


def _compare(values: Sequence[int], where: str, what: str) -> None:
    """Name the ranks whose value is not that of the most ranks, or of as many as any and of rank 0."""
    usual = Counter(values).most_common(1)[0][0]
    others = [str(rank) for rank, value in enumerate(values) if value != usual]
    if others:
        raise RuntimeError(f'{where}: rank {", ".join(others)} {what} than rank {values.index(usual)} (of '
                           f'{len(values)}); all processes need the same config, code, checkpoint and weights')
