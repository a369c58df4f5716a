"""Curves of the loss by width and depth."""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor

from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS
from mmbignas.space import IMAGE_SIZE
from mmbignas.train.sandwich_rule import SandwichRule, sandwich_rule
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.train.watch.pass_losses import PassLosses
from mmbignas.utils.checks import check_count

PREFIX = 'subnet_loss'  # of the tags
DEFAULT_ELEMENTS = ('depth', 'out_channel')


@dataclass(frozen=True)
class TrackedValue:
    """Where a subnet has one of the values that losses are sorted by.

    Args:
        tag: its name in the logs.
        path: of the searchable module.
        element: its element, or ``image_size``.
        stage: the stage whose value counts.
    """

    tag: str
    path: str
    element: str
    stage: int = 0

    def value(self, subnet_pass: SubnetPass) -> str:
        """The value that the subnet of a pass has there, as it stands in tags."""
        if self.element == IMAGE_SIZE:
            assert subnet_pass.image_size is not None
            return 'x'.join(map(str, subnet_pass.image_size))
        return str(subnet_pass.subnet[self.path][self.element][self.stage])


@HOOKS.register_module()
class SubnetLossHook(Hook):
    """Logs the mean loss of the random subnets by width, by depth, or by any other element.

    It shows whether narrow or shallow subnets fall behind in training. Only passes whose subnet is drawn (``random``,
    ``best_up``, ``worst_up``) count: ``max`` and ``min`` are logged under their own names, and would decide the means
    at the ends. Means are over the last ``window`` passes with that value, and over the processes; losses that are not
    finite are left out. They go to all back ends of the visualizer (TensorBoard, ``scalars.json``) as
    ``subnet_loss/<module>.<element>.<stage>/<value>``, e.g. ``subnet_loss/backbone.depth.3/6``; the stage, from 0, is
    left out where there is but one choice for all. A value that no subnet had since the last entry has none. After a
    resume the windows begin anew.

    Args:
        by: elements as ``<path of the module>.<element>``, e.g. ``backbone.depth``, or ``image_size``. ``None`` for
            widths and depths of all modules, and the image size where it is searched.
        interval: iterations from one entry to the next.
        window: number of passes that a mean is over at most.

    Raises:
        ConfigError: for numbers below 1; before training, for a training loop without drawn subnets, and for elements
            that are not searched or that are drawn block by block.
    """

    def __init__(self, by: Sequence[str] | None = None, interval: int = 50, window: int = 100) -> None:
        if by is not None and (isinstance(by, str) or not isinstance(by, Sequence) or not by):
            raise ConfigError(f"SubnetLossHook.by: {by!r} is not allowed; allowed: None, or a list such as "
                              "['backbone.depth', 'backbone.out_channel']")
        self.by = by
        self.interval = check_count(interval, 'SubnetLossHook.interval')
        self.window = check_count(window, 'SubnetLossHook.window')

    def before_train(self, runner: Any) -> None:
        """Find the elements."""
        rule = sandwich_rule(runner, 'SubnetLossHook')
        self._drawn = {choice.name for choice in rule.choices if choice.subnet is None}
        if not self._drawn:
            raise ConfigError(f'SubnetLossHook: train_cfg.sample_strategy {[choice.name for choice in rule.choices]} '
                              "is not allowed without 'random', 'best_up' or 'worst_up'; the losses of the others are "
                              'logged under their names')
        self._places = _places(rule, self.by)
        self._losses = PassLosses()
        self._passes: list[SubnetPass] = []
        self._windows: dict[str, deque[float]] = {}

    def after_subnet_backward(self, runner: Any, subnet_pass: SubnetPass, loss: Tensor) -> None:
        """Keep the losses of drawn subnets."""
        if subnet_pass.name in self._drawn:
            self._losses.add(loss)
            self._passes.append(subnet_pass)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Make an entry in all back ends of the visualizer."""
        if not self.every_n_train_iters(runner, self.interval) and not self.is_last_train_iter(runner):
            return
        passes, self._passes = self._passes, []
        scalars = {}
        for own, loss in zip(passes, self._losses.take()):
            for place in self._places if math.isfinite(loss) else ():
                tag = f'{PREFIX}/{place.tag}/{place.value(own)}'
                window = self._windows.setdefault(tag, deque(maxlen=self.window))
                window.append(loss)
                scalars[tag] = window
        means = {tag: math.fsum(window) / len(window) for tag, window in sorted(scalars.items())}
        if means:
            runner.visualizer.add_scalars(means, step=runner.iter + 1)


def _places(rule: SandwichRule, by: Sequence[str] | None) -> list[TrackedValue]:
    """The places that ``SubnetLossHook.by`` names."""
    modules = rule.space.modules
    known = {f'{path}.{name}': (path, name) for path, module in modules.items()
             for name, element in module.elements.items() if element.searched and not element.per_block}
    sized = len(rule.image_sizes) > 1
    if by is None:
        by = [key for key, (_, name) in known.items() if name in DEFAULT_ELEMENTS] + [IMAGE_SIZE] * sized
    places = []
    for index, key in enumerate(by):
        if key == IMAGE_SIZE and sized:
            places.append(TrackedValue(key, '', key))
            continue
        if key not in known:
            raise ConfigError(f'SubnetLossHook.by[{index}]: {key!r} is not allowed; allowed: '
                              f'{", ".join([*known, *[IMAGE_SIZE] * sized]) or "nothing, as no element is searched"}')
        path, name = known[key]
        element = modules[path].elements[name]
        stages = [stage for stage, choices in enumerate(element.choices) if len(choices) > 1]
        if element.strategy is not None and element.strategy.name == 'net_wise':
            stages = stages[:1]
        places += [TrackedValue(f'{key}.{stage}' if len(stages) > 1 else key, path, name, stage) for stage in stages]
    return places
