"""The sandwich rule: which subnets an iteration trains."""
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.space import ImageSize, SearchSpace, Subnet
from mmbignas.supernet import parse_choices


@dataclass(frozen=True)
class SubnetPass:
    """One forward and backward pass of an iteration.

    Args:
        iteration: number of the iteration.
        index: number of the pass in the iteration.
        name: what the subnet is called in logs, e.g. ``max`` or ``random0``.
        subnet: the subnet that is trained.
        is_max: whether it is the largest one, at any image size.
        image_size: height and width in pixels that the images are resized to; ``None`` for the images as they are.
    """

    iteration: int
    index: int
    name: str
    subnet: Subnet
    is_max: bool
    image_size: ImageSize | None = None


class SandwichRule:
    """Chooses the subnets of each iteration: the largest, the smallest and random ones (BigNAS, arXiv 2003.11142, 3.1).

    Args:
        space: the model's search space.
        sample_subnet_num: passes per iteration. With 1, ``sample_strategy`` is walked one entry per iteration; with
            more, one entry per pass.
        sample_strategy: ``max``, ``min``, ``middle``, ``random``, numbers of subnets, files, or settings, see
            :func:`~mmbignas.supernet.parse_choices`.
        image_sizes: height and width in pixels, of images that the passes may see. The largest subnet sees the
            greatest, the smallest the least, random ones any, and those given by settings the one that they name.
        share_interpolation: all passes of an iteration see the same size, which is drawn for each iteration; subnets
            then have none of their own.

    Raises:
        ConfigError: for an unknown strategy, settings outside the space, or a list that does not fit the number.
    """

    def __init__(self, space: SearchSpace, sample_subnet_num: int, sample_strategy: Sequence[str | Mapping[str, Any]],
                 image_sizes: Sequence[ImageSize] = (), share_interpolation: bool = False) -> None:
        if isinstance(sample_subnet_num, bool) or not isinstance(sample_subnet_num, int) or sample_subnet_num < 1:
            raise ConfigError(f'train_cfg.sample_subnet_num: {sample_subnet_num!r} is not allowed; allowed: integers '
                              'from 1')
        self.image_sizes = space.with_image_sizes(image_sizes).image_sizes
        self.share_interpolation = share_interpolation
        if not share_interpolation:
            space = space.with_image_sizes(image_sizes)
        self.choices = parse_choices(sample_strategy, space, 'train_cfg.sample_strategy')
        if sample_subnet_num not in (1, len(self.choices)):
            raise ConfigError(f'train_cfg.sample_strategy has {len(self.choices)} entries, but sample_subnet_num is '
                              f'{sample_subnet_num}; give one entry per pass, or set sample_subnet_num=1 to walk them '
                              'one per iteration')
        self.sample_subnet_num = sample_subnet_num
        self.space = space
        self.max = space.max()

    @property
    def max_leads(self) -> bool:
        """Whether every iteration begins with the largest subnet and goes on to others."""
        return self.sample_subnet_num > 1 and self.choices[0].subnet == self.max

    def passes(self, seed: int, iteration: int) -> list[SubnetPass]:
        """The passes of an iteration; they depend on these two numbers alone.

        Args:
            seed: the run's seed, the same on all ranks.
            iteration: number of the iteration.
        """
        choices, shared = self.choices, None
        if self.share_interpolation and self.image_sizes:
            shared = random.Random(f'{seed}-{iteration}-image_size').choice(self.image_sizes)
        if self.sample_subnet_num == 1:
            choices = [choices[iteration % len(choices)]]
        result = []
        for index, choice in enumerate(choices):
            subnet = choice.draw(self.space, random.Random(f'{seed}-{iteration}-{index}'))
            image_size = shared or subnet.image_size or (self.image_sizes[0] if self.image_sizes else None)
            result.append(SubnetPass(iteration, index, choice.name, subnet, dict(subnet) == dict(self.max), image_size))
        return result
