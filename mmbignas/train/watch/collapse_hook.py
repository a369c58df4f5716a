"""A largest subnet that forgets what it had learned is noticed."""
from __future__ import annotations

import math
from collections import deque
from numbers import Real
from statistics import median
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor

from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS
from mmbignas.train.sandwich_rule import sandwich_rule
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.train.watch.pass_losses import PassLosses
from mmbignas.utils.checks import check_count

STATE_KEY = 'collapse_watch'  # its entry in the message hub, and so in checkpoints
LOOKS_PER_WINDOW = 5


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warns when the loss of the largest subnet is back where training began.

    A training with too high a learning rate may learn for days and then lose everything within some iterations, with
    losses that are finite all the time. The loss is compared with its median in the first ``window`` passes, which is
    about that of guessing. Once the median of the last ``window`` passes has been below ``learned`` times that, a
    median above ``collapsed`` times that is a collapse. It is reported with the iteration and with the last one at
    which the median was still below ``learned``; after the next time below it, another one can be reported. It is
    medians, since a single batch with a huge loss is no collapse.

    The losses are averaged over the processes. They are looked at every ``window // 5`` passes, so that no other
    iteration waits for the device. What was the beginning is kept in checkpoints, so it holds after a resume too.
    Losses that are not finite are left out; they are the business of
    :class:`~mmbignas.train.SkipNonFiniteHook`.

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

    def __init__(self, window: int = 100, learned: float = 0.7, collapsed: float = 0.95, stop: bool = False) -> None:
        self.window = check_count(window, 'CollapseHook.window')
        for name, share in (('learned', learned), ('collapsed', collapsed)):
            if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share < math.inf:
                raise ConfigError(f'CollapseHook.{name}: {share!r} is not allowed; allowed: numbers greater than 0')
        if not learned < collapsed:
            raise ConfigError(f'CollapseHook.learned: {learned!r} is not allowed with collapsed={collapsed!r}; '
                              'allowed: less than that')
        if not isinstance(stop, bool):
            raise ConfigError(f'CollapseHook.stop: {stop!r} is not allowed; allowed: True, False')
        self.learned, self.collapsed, self.stop = learned, collapsed, stop

    def before_train(self, runner: Any) -> None:
        """Look whether there is a largest subnet, and go on from a checkpoint's state."""
        rule = sandwich_rule(runner, 'CollapseHook')
        if all(choice.subnet is None or dict(choice.subnet) != dict(rule.max) for choice in rule.choices):
            raise ConfigError(f'CollapseHook: train_cfg.sample_strategy {[choice.name for choice in rule.choices]} is '
                              "not allowed without 'max', whose loss is watched")
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
