"""The sandwich rule: which subnets an iteration trains."""
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mmbignas.space import ImageSize, SearchSpace
from mmbignas.supernet import SubnetChoice, parse_choices
from mmbignas.train.subnet_pass import ATTENTIVE, SubnetPass
from mmbignas.utils.rules import integer, must_be

if TYPE_CHECKING:
    from mmbignas.train.attentive import AttentiveSampling


class SandwichRule:
    """Chooses the subnets of each iteration: the largest, the smallest and random ones (BigNAS, arXiv 2003.11142, 3.1).

    Args:
        space: the model's search space.
        sample_subnet_num: passes per iteration. With 1, ``sample_strategy`` is walked one entry per iteration; with
            more, one entry per pass.
        sample_strategy: what :func:`~mmbignas.supernet.parse_choices` takes; or ``best_up`` or ``worst_up`` for the one
            with the lowest or highest loss of random subnets of about the same MACs, see ``attentive``.
        image_sizes: height and width in pixels, of images that the passes may see. The largest subnet sees the
            greatest, the smallest the least, random ones any, and those given by settings the one that they name.
        share_interpolation: all passes of an iteration see the same size, which is drawn for each iteration; subnets
            then have none of their own.
        attentive: draws the subnets for ``best_up`` and ``worst_up``, which are not allowed without it.

    Raises:
        ConfigError: for an unknown strategy, settings outside the space, or a list that does not fit the number.
    """

    def __init__(self, space: SearchSpace, sample_subnet_num: int, sample_strategy: Sequence[str | Mapping[str, Any]],
                 image_sizes: Sequence[ImageSize] = (), share_interpolation: bool = False,
                 attentive: AttentiveSampling | None = None) -> None:
        integer(1).check(sample_subnet_num, 'train_cfg.sample_subnet_num')
        self.image_sizes = space.with_image_sizes(image_sizes).image_sizes
        self.share_interpolation = share_interpolation
        if not share_interpolation:
            space = space.with_image_sizes(image_sizes)
        self.choices = parse_choices(sample_strategy, space, 'train_cfg.sample_strategy', drawn=ATTENTIVE)
        if attentive is None and any(choice.drawn in ATTENTIVE for choice in self.choices):
            raise must_be('attentive', f'an AttentiveSampling with {" or ".join(ATTENTIVE)}', attentive)
        self.attentive = attentive
        if sample_subnet_num not in (1, len(self.choices)):
            raise must_be('train_cfg.sample_subnet_num', f'{len(self.choices)}, the number of entries of '
                          'sample_strategy, or 1 to walk them one per iteration', sample_subnet_num)
        self.sample_subnet_num = sample_subnet_num
        self.space = space
        self.max = space.max()

    @property
    def max_leads(self) -> bool:
        """Whether every iteration begins with the largest subnet and goes on to others."""
        return self.sample_subnet_num > 1 and self.choices[0].subnet == self.max

    def passes(self, seed: int, iteration: int) -> list[SubnetPass]:
        """The passes of an iteration; they depend on the run's seed and the number of the iteration alone.

        For ``best_up`` and ``worst_up`` this holds for the candidates. Which of them is trained depends on the weights
        and the batch too.
        """
        choices, shared = self.choices, None
        if self.share_interpolation and self.image_sizes:
            shared = random.Random(f'{seed}-{iteration}-image_size').choice(self.image_sizes)
        if self.sample_subnet_num == 1:
            choices = [choices[iteration % len(choices)]]
        result = []
        for index, choice in enumerate(choices):
            rng = random.Random(f'{seed}-{iteration}-{index}')
            draw = partial(self._draw, choice, rng, shared, iteration, index)
            if self.attentive is not None and choice.drawn in ATTENTIVE:
                candidates = self.attentive.draw(draw)
                result.append(replace(candidates[0], candidates=candidates, highest=choice.drawn == 'worst_up'))
            else:
                result.append(draw())
        return result

    def _draw(self, choice: SubnetChoice, rng: random.Random, shared: ImageSize | None, iteration: int,
              index: int) -> SubnetPass:
        subnet = choice.draw(self.space, rng)
        image_size = shared or subnet.image_size or (self.image_sizes[0] if self.image_sizes else None)
        return SubnetPass(iteration, index, choice.name, subnet, dict(subnet) == dict(self.max), image_size)


def sandwich_rule(runner: Any, hook: str) -> SandwichRule:
    """The rule of a runner's training loop, which the hook of this name needs.

    Raises:
        ConfigError: for a training loop that trains no subnets.
    """
    rule = getattr(runner.train_loop, 'rule', None)
    if not isinstance(rule, SandwichRule):
        raise must_be('train_cfg.type', f'SandwichTrainLoop or SandwichIterTrainLoop with {hook}',
                      type(runner.train_loop).__name__)
    return rule
