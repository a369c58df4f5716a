"""Attentive sampling: of random subnets of about the same MACs, the one with the lowest or highest loss is trained."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmbignas.cost import CostModel
from mmbignas.data import network_stride, read_image_sizes
from mmbignas.errors import ConfigError
from mmbignas.space import ImageSize, Subnet
from mmbignas.train.subnet_pass import ATTENTIVE, SubnetPass
from mmbignas.train.trial_pass import undisturbed
from mmbignas.utils.rules import check_keys, check_options, integer, must_be, number

KEY = 'train_cfg.attentive'
RULES = dict(candidates=integer(2), tolerance=number(above=0, below=1))
MAX_DRAWS_PER_CANDIDATE = 100
DEFAULT_SIDE = 64


@dataclass(frozen=True)
class AttentiveSampling:
    """Draws the candidates of passes ``best_up`` and ``worst_up`` (AttentiveNAS, arXiv 2011.09011, section 3).

    AttentiveNAS' own code calls them ``bestup`` and ``worstup``, and the number of candidates ``num_trials``.

    The first one is a random subnet. Further ones are drawn until there are as many distinct ones as wanted whose MACs
    lie near those of the first, or until ``MAX_DRAWS_PER_CANDIDATE`` draws per candidate have been made.

    Args:
        macs: counts the MACs of a subnet on an image of a size; ``None`` for images as they are.
        candidates: how many subnets to choose from, the first one included.
        tolerance: how far their MACs may lie from those of the first one, as a share of the latter.

    Raises:
        ConfigError: for numbers that are not allowed.
    """

    macs: Callable[[Subnet, ImageSize | None], int]
    candidates: int = 3
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        check_options(KEY, vars(self), RULES)

    def draw(self, draw_pass: Callable[[], SubnetPass]) -> tuple[SubnetPass, ...]:
        """Draw the candidates of one pass.

        Args:
            draw_pass: gives a pass with another random subnet each time.

        Returns:
            tuple: distinct ones, in the order in which they were drawn; at least one.
        """
        found = [draw_pass()]
        target = self.macs(found[0].subnet, found[0].image_size)
        for _ in range(MAX_DRAWS_PER_CANDIDATE * self.candidates):
            drawn = draw_pass()
            distance = abs(self.macs(drawn.subnet, drawn.image_size) - target)
            if distance <= self.tolerance * target and drawn not in found:
                found.append(drawn)
                if len(found) == self.candidates:
                    break
        return tuple(found)


def read_attentive(settings: Any, strategy: Any, model: nn.Module,
                   image_sizes: Sequence[ImageSize] = ()) -> AttentiveSampling | None:
    """Read ``train_cfg.attentive``.

    Args:
        settings: ``dict(candidates=3, tolerance=0.05, image_size=None)`` or a part of it, see
            :class:`AttentiveSampling`. ``image_size`` is the ``[height, width]`` in pixels that MACs are counted at
            where there are no ``image_sizes``. As only their ratio matters, it need not be that of the data; the
            default is 64 by 64, or the least above that the model takes.
        strategy: ``train_cfg.sample_strategy``.
        model: the supernet, not a wrapper.
        image_sizes: ``train_cfg.image_size_list``, as height and width in pixels.

    Returns:
        AttentiveSampling: ``None`` where no entry of ``strategy`` needs it.

    Raises:
        ConfigError: for settings that are not allowed, and for a model whose MACs cannot be counted.
    """
    used = [entry for entry in strategy if entry in ATTENTIVE] if isinstance(strategy, (list, tuple)) else []
    if not used:
        return None
    numbers = dict(check_keys({} if settings is None else settings, KEY, (*RULES, 'image_size')))
    image_size = numbers.pop('image_size', None)
    if image_sizes:
        sizes = image_sizes
    elif image_size is None:
        sizes = [_default_size(model)]
    else:
        sizes = read_image_sizes(model, [image_size], f'{KEY}.image_size')
    sampling = AttentiveSampling(lambda subnet, size: cost_model(Subnet(subnet, size)).macs, **numbers)
    try:
        cost_model = CostModel(model, sizes)
    except ConfigError as error:
        raise must_be('train_cfg.sample_strategy', f'a list without {" and ".join(ATTENTIVE)}, since the MACs of this '
                      f'model cannot be counted ({error})', used[0]) from error
    return sampling


def _default_size(model: nn.Module) -> ImageSize:
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    side = -(-max(DEFAULT_SIDE, network_stride(model)) // divisor) * divisor
    return side, side


@torch.no_grad()
def choose(subnet_pass: SubnetPass, model: nn.Module, loss: Callable[[SubnetPass], Tensor]) -> SubnetPass:
    """Choose the candidate of a pass that is trained, by a forward pass of each.

    It is the one with the lowest loss, or with ``subnet_pass.highest`` the highest. The losses are averaged over the
    processes, so all choose the same one. Batch normalisations use the statistics of the batch, as in training. Layers
    such as dropout let everything through, and any other random numbers of torch are the same for each candidate, so
    the choice follows from candidates, weights and batch. Running statistics and random states are left as they were. A
    loss that is not finite is never chosen, unless none is.

    Args:
        subnet_pass: a pass with candidates.
        model: the supernet, not a wrapper, in training mode.
        loss: applies the subnet of a candidate and computes its loss, a scalar.
    """
    candidates = subnet_pass.candidates
    if len(candidates) == 1:
        return candidates[0]
    losses = []
    with undisturbed(model):
        for candidate in candidates:
            torch.default_generator.manual_seed(0)  # torch.manual_seed would seed all GPUs
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed(0)
            losses.append(loss(candidate).detach().float())
    averaged = torch.stack(losses)
    all_reduce(averaged, 'mean')
    sign = -1 if subnet_pass.highest else 1
    ranks = [sign * value if math.isfinite(value) else math.inf for value in averaged.tolist()]
    return candidates[ranks.index(min(ranks))]
