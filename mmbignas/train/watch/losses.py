"""The losses of subnets over a training: curves by width and depth, and a warning when they collapse."""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from torch import Tensor

from mmbignas.registry import HOOKS
from mmbignas.space import IMAGE_SIZE
from mmbignas.train.sandwich_rule import SandwichRule, sandwich_rule
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.utils.rules import boolean, check_options, integer, list_of, must_be, number, text

PREFIX = 'subnet_loss'  # of the tags
DEFAULT_ELEMENTS = ('depth', 'out_channel')
STATE_KEY = 'collapse_watch'  # of CollapseHook in the message hub, and so in checkpoints
LOOKS_PER_WINDOW = 5
CURVE_RULES = dict(
    by=list_of(text(), "a list of elements, such as ['backbone.depth', 'backbone.out_channel']", 1).or_none(),
    interval=integer(1), window=integer(1))
COLLAPSE_RULES = dict(window=integer(1), learned=number(above=0), collapsed=number(above=0), stop=boolean())


class PassLosses:
    """Collects losses on the device that they are computed on, until somebody wants to see them.

    A look at a loss waits for the device, and an average over the processes for all of them; a hook that looks every
    few iterations does so once for all the losses since it did last.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Add a loss, a scalar without a graph; in all processes, in the same order."""
        self._losses.append(loss.float())

    def take(self) -> list[float]:
        """What was added since the last call, each averaged over the processes; all of them must call this together."""
        if not self._losses:
            return []
        losses = torch.stack(self._losses)
        self._losses = []
        all_reduce(losses, 'mean')
        return losses.tolist()


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

    needs_sandwich = True  # means nothing in the training of one network

    def __init__(self, by: Sequence[str] | None = None, interval: int = 50, window: int = 100) -> None:
        check_options('SubnetLossHook', locals(), CURVE_RULES)
        self.by, self.interval, self.window = by, interval, window

    def before_train(self, runner: Any) -> None:
        """Find the elements."""
        rule = sandwich_rule(runner, 'SubnetLossHook')
        self._drawn = {choice.name for choice in rule.choices if choice.subnet is None}
        if not self._drawn:
            raise must_be('train_cfg.sample_strategy', 'a list with random, best_up or worst_up with SubnetLossHook, '
                          'since the losses of the others are logged under their names',
                          [choice.name for choice in rule.choices])
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
            raise must_be(f'SubnetLossHook.by[{index}]', f'one of {", ".join([*known, *[IMAGE_SIZE] * sized])}', key)
        path, name = known[key]
        element = modules[path].elements[name]
        stages = [stage for stage, choices in enumerate(element.choices) if len(choices) > 1]
        if element.strategy is not None and element.strategy.name == 'net_wise':
            stages = stages[:1]
        places += [TrackedValue(f'{key}.{stage}' if len(stages) > 1 else key, path, name, stage) for stage in stages]
    return places


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warns when the loss of the largest subnet is back where training began.

    A training with too high a learning rate may learn for days and then lose everything within some iterations, with
    losses that are finite all the time. The loss is compared with its median in the first ``window`` passes, which is
    about that of guessing. Once the median of the last ``window`` passes has been below ``learned`` times that, a
    median above ``collapsed`` times that is a collapse. It is reported with the iteration and with the last one at
    which the median was still below ``learned``; after the next time below it, another one can be reported. Medians
    are compared because a single batch with a huge loss is no collapse.

    The losses are averaged over the processes. They are looked at every ``window // 5`` passes, so that no other
    iteration waits for the device. The first losses are kept in checkpoints, so they hold after a resume too.
    Losses that are not finite are left out; :class:`~mmbignas.train.SkipNonFiniteHook` deals with them.

    Args:
        window: number of passes of the largest subnet that medians are over.
        learned: share of the first median below which something has been learned.
        collapsed: share of the first median above which it is lost again.
        stop: end the training by an error.

    Raises:
        ConfigError: for a window below 1 or shares that are not ``0 < learned < collapsed``; before training, for a
            training loop that does not train the largest subnet.
        RuntimeError: with ``stop``, in training, for a collapse.
    """

    needs_sandwich = True  # means nothing in the training of one network

    def __init__(self, window: int = 100, learned: float = 0.7, collapsed: float = 0.95, stop: bool = False) -> None:
        check_options('CollapseHook', locals(), COLLAPSE_RULES)
        if not learned < collapsed:
            raise must_be('CollapseHook.learned', f'a number below CollapseHook.collapsed={collapsed}', learned)
        self.window, self.learned, self.collapsed, self.stop = window, learned, collapsed, stop

    def before_train(self, runner: Any) -> None:
        """Look whether there is a largest subnet, and go on from a checkpoint's state."""
        rule = sandwich_rule(runner, 'CollapseHook')
        if all(choice.subnet is None or dict(choice.subnet) != dict(rule.max) for choice in rule.choices):
            raise must_be('train_cfg.sample_strategy', 'a list with max with CollapseHook',
                          [choice.name for choice in rule.choices])
        state = runner.message_hub.runtime_info.get(STATE_KEY, {})
        self._first: list[float] = list(state.get('first', []))
        self._good: int | None = state.get('good')  # iteration of the last median below the share `learned`
        self._last: deque[float] = deque(state.get('last', []), self.window)
        self._losses = PassLosses()
        self._iterations: list[int] = []

    def after_subnet_backward(self, runner: Any, subnet_pass: SubnetPass, loss: Tensor) -> None:
        """Keep the losses of the largest subnet."""
        if subnet_pass.is_max:
            self._losses.add(loss)
            self._iterations.append(subnet_pass.iteration + 1)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at the losses when there are enough of them."""
        if len(self._iterations) < max(1, self.window // LOOKS_PER_WINDOW):
            return
        iterations, self._iterations = self._iterations, []
        for iteration, loss in zip(iterations, self._losses.take()):
            if math.isfinite(loss):
                self._see(runner, iteration, loss)
        runner.message_hub.update_info(STATE_KEY, dict(first=self._first, good=self._good, last=list(self._last)))

    def _see(self, runner: Any, iteration: int, loss: float) -> None:
        if len(self._first) < self.window:
            self._first.append(loss)
            return
        self._last.append(loss)
        if len(self._last) < self.window:
            return
        first, now = median(self._first), median(self._last)
        if now < self.learned * first:
            self._good = iteration
        elif self._good is not None and now > self.collapsed * first:
            message = (f"The largest subnet's loss has collapsed: {now:.4g} is the median of the {self.window} passes "
                       f'up to iteration {iteration}, {first:.4g} that of the first {self.window} of the training. It '
                       f'began after iteration {self._good}, when the median was still below '
                       f'{self.learned * first:.4g}')
            self._good = None
            if self.stop:
                raise RuntimeError(f'{message} (CollapseHook.stop=True)')
            runner.logger.warning(message + '.')
