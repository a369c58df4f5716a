"""The search space of a whole model."""
from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.space.module_space import MissingElement, ModuleSettings, ModuleSpace
from mmbignas.space.subnet import IMAGE_SIZE, ImageSize, Subnet
from mmbignas.utils.rules import check_keys, integer, list_of, must_be, shown

PIXELS = list_of(integer(1), '[height, width] in pixels, two integers >= 1', least=2, most=2)


class SearchSpace:
    """The search space of a model: module path -> :class:`ModuleSpace`, and the image sizes to choose from.

    The subnets are numbered ``0 .. size - 1`` in lexicographic order: by the modules in their order, then by the image
    size, which varies fastest. Number 0 is the smallest subnet, the last number the largest. Their numbers often have
    dozens of digits, so no method except :meth:`traverse` enumerates them.

    Args:
        modules: the spaces of the searchable modules by their path in the model, e.g. ``backbone`` or
            ``bbox_head.cls_tower``.
        image_sizes: ``(height, width)`` in pixels, in any order. With a single one there is no choice, and subnets have
            none.

    Raises:
        ConfigError: for image sizes that are not distinct pairs of positive integers.

    Attributes:
        modules: the spaces by path.
        image_sizes: the image sizes, ascending by area.

    Example:
        >>> backbone = dict(depth=[1, 2], out_channel=dict(space=dict(min=[8, 16], max=[16, 32], stride=8)))
        >>> space = SearchSpace(dict(backbone=ModuleSpace(backbone, num_stages=2)))
        >>> space.size
        6
        >>> space[5].to_dict()
        {'backbone': {'depth': [1, 2], 'out_channel': [16, 32]}}
        >>> space.index(space[5])
        5
    """

    def __init__(self, modules: Mapping[str, ModuleSpace], image_sizes: Sequence[Sequence[int]] = ()) -> None:
        self.modules = dict(modules)
        self.image_sizes = _read_image_sizes(image_sizes)

    def with_image_sizes(self, image_sizes: Sequence[Sequence[int]]) -> SearchSpace:
        """The same modules with other image sizes."""
        return SearchSpace(self.modules, image_sizes)

    @cached_property
    def size(self) -> int:
        """How many subnets there are."""
        return math.prod(space.size for space in self.modules.values()) * max(len(self.image_sizes), 1)

    def __getitem__(self, number: int) -> Subnet:
        """The subnet with this number. Raises ConfigError for a number outside ``0 .. size - 1``."""
        integer(0, self.size - 1).check(number, 'subnet number')
        number, image_size = divmod(int(number), max(len(self.image_sizes), 1))
        numbers = {}
        for path, space in reversed(self.modules.items()):
            number, numbers[path] = divmod(number, space.size)
        return self._assemble(lambda path, space: space[numbers[path]], lambda sizes: sizes[image_size])

    def index(self, subnet: Subnet | Mapping[str, Any]) -> int:
        """The number of a subnet, which is given in any form that :meth:`canonical` takes.

        Raises:
            ConfigError: for settings outside the space.
        """
        subnet, number = self.canonical(subnet), 0
        for path, space in self.modules.items():
            number = number * space.size + space.index(subnet[path])
        if subnet.image_size is None:
            return number
        return number * len(self.image_sizes) + self.image_sizes.index(subnet.image_size)

    def _assemble(self, pick: Callable[[str, ModuleSpace], ModuleSettings],
                  pick_size: Callable[[Sequence[ImageSize]], ImageSize]) -> Subnet:
        settings = {path: pick(path, space) for path, space in self.modules.items()}
        return Subnet(settings, pick_size(self.image_sizes) if len(self.image_sizes) > 1 else None)

    def max(self) -> Subnet:
        """The largest subnet."""
        return self._assemble(lambda _, space: space.max(), lambda sizes: sizes[-1])

    def min(self) -> Subnet:
        """The smallest subnet."""
        return self._assemble(lambda _, space: space.min(), lambda sizes: sizes[0])

    def middle(self) -> Subnet:
        """The subnet in the middle of all choices."""
        return self._assemble(lambda _, space: space.middle(), lambda sizes: sizes[len(sizes) // 2])

    def sample(self, rng: random.Random) -> Subnet:
        """Draw a subnet from an explicit generator; the same generator state gives the same subnet everywhere.

        Each element is drawn by its strategy, the depth before those that depend on it. So with block-wise elements,
        shallow subnets are drawn more often than their share of the space; see :meth:`sample_uniform`.
        """
        return self._assemble(lambda _, space: space.sample(rng), rng.choice)

    def sample_uniform(self, rng: random.Random) -> Subnet:
        """Draw a subnet, each with the same probability, from an explicit generator."""
        return self[rng.randrange(self.size)]

    def traverse(self, count: int | None = None) -> Iterator[Subnet]:
        """Walk the space in the order of the numbers, one subnet at a time.

        Args:
            count: walk this many, evenly spaced from the first to the last, instead of all; in a smaller space, all.

        Raises:
            ConfigError: for a count below 1.
        """
        if count is None:
            return map(self.__getitem__, range(self.size))
        count = min(int(integer(1).check(count, 'count')), self.size)
        return (self[number * (self.size - 1) // max(count - 1, 1)] for number in range(count))

    def canonical(self, settings: Mapping[str, Any]) -> Subnet:
        """Check the settings of a whole model and bring them into canonical form.

        Args:
            settings: module path -> element -> values; or a subnet. A module without a choice may be left out. With
                several image sizes, ``image_size`` -> ``[height, width]`` is required; with one, it is optional.

        Raises:
            ConfigError: naming module, element, stage, the value and the allowed ones.
        """
        if isinstance(settings, Subnet):
            settings = settings.to_dict()
        check_keys(settings, 'subnet settings', [*self.modules, IMAGE_SIZE])
        result, missing = {}, []
        for path, space in self.modules.items():
            if path not in settings and space.searched:
                missing.append(f'subnet settings: {path} is missing (given: {", ".join(settings) or "nothing"}); give '
                               'its settings too')
                continue
            try:
                result[path] = space.canonical(settings.get(path, {}), path)
            except MissingElement as error:
                missing.append(str(error))
        image_size = self._canonical_size(settings) if IMAGE_SIZE in settings or not missing else None
        if missing:  # said last, so that it hides no wrong value
            raise ConfigError(missing[0])
        return Subnet(result, image_size)

    def _canonical_size(self, settings: Mapping[str, Any]) -> ImageSize | None:
        """The image size of a subnet, ``None`` where the space has no choice of it."""
        allowed = [list(size) for size in self.image_sizes]
        if IMAGE_SIZE not in settings:
            if len(allowed) > 1:
                raise ConfigError(f'subnet settings: {IMAGE_SIZE} is missing; give one of {shown(allowed)}')
            return None
        size = _read_image_size(settings[IMAGE_SIZE])
        if size not in self.image_sizes:
            none = ('left out, since there is no choice of image sizes here (give test_cfg.image_size, or '
                    'train_cfg.image_size_list in a training, several to get one)')
            raise must_be(IMAGE_SIZE, f'one of {shown(allowed)}' if allowed else none, list(size))
        return size if len(allowed) > 1 else None


def _read_image_sizes(sizes: Sequence[Sequence[int]]) -> tuple[ImageSize, ...]:
    """Distinct image sizes, ascending by area."""
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise must_be(IMAGE_SIZE, 'a list of [height, width]', sizes)
    read = [_read_image_size(size) for size in sizes]
    if len(set(read)) < len(read):
        raise must_be(IMAGE_SIZE, 'a list of different [height, width]', sizes)
    return tuple(sorted(read, key=lambda size: (math.prod(size), size)))


def _read_image_size(size: Any) -> ImageSize:
    """Height and width in pixels, as plain integers."""
    PIXELS.check(size, IMAGE_SIZE)
    return int(size[0]), int(size[1])
