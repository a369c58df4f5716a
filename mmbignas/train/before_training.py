"""What comes before the first iteration: BN calibration of one network, and its accuracy."""
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook, Hook, ParamSchedulerHook
from torch import Tensor

from mmbignas.data.calibration_images import DEFAULT_IMAGES, CalibrationImages
from mmbignas.registry import HOOKS
from mmbignas.supernet import calibrate_bn
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.rules import must_be

BEFORE = 'metrics_before_training'  # in the message hub, and so in the checkpoints
STEERING = (EarlyStoppingHook, ParamSchedulerHook)  # to them it would be one more epoch without progress


@HOOKS.register_module()
class CalibrateFirstHook(Hook):
    """Calibrates the BN statistics before the first iteration, for a subnet that starts from a supernet's weights.

    The supernet's statistics are a mixture of those of all its subnets. It is done once, not after a resume: from then
    on the statistics are those that training keeps. See :func:`~mmbignas.supernet.calibrate_bn`.

    Args:
        num_images, dataloader: see :class:`~mmbignas.data.calibration_images.CalibrationImages`.

    Raises:
        ConfigError: for values that are not allowed; before the first iteration, for a dataloader that is missing or
            names files that do not exist.
    """

    def __init__(self, num_images: int = DEFAULT_IMAGES, dataloader: Mapping[str, Any] | None = None) -> None:
        self.images = CalibrationImages(num_images, dataloader, 'CalibrateFirstHook')

    def before_train(self, runner: Any) -> None:
        """Calibrate, except after a resume."""
        if runner.iter > 0:
            return
        # Only now: a test of the same config needs no training data.
        batches, begin = self.images.resolve(runner.cfg).load(runner.logger.info), time.time()
        calibrate_bn(runner.model, batches)
        runner.logger.info(f'BN calibration before training: {time.time() - begin:.1f} s')


@HOOKS.register_module()
class ValidateFirstHook(Hook):
    """Validates once before the first iteration, and says at the end what training has brought.

    The first validation is like any other: its metrics are logged, at step 0, and the checkpoint with the best metric
    may be that of before training. Random states and the model's mode are put back, and schedules and early stopping do
    not count it, so training is the same with it and without it. After a resume it is not done again; its metrics are
    kept in the checkpoints.

    Raises:
        ConfigError: before the first iteration, without ``val_cfg``, or for a ``priority`` by which it would come
            before ``CalibrateFirstHook`` or ``CheckpointHook``.
    """

    # After all others have made ready for training, the hook of the checkpoints among them.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._after: Mapping[str, Any] | None = None

    def before_train(self, runner: Any) -> None:
        """Validate, except after a resume."""
        self._check(runner)
        if runner.iter == 0:
            runner.logger.info('Validation before training')
            _initialize_averages(runner)
            devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
            with preserved_rng(), torch.random.fork_rng(devices), _unnoticed_by(runner, STEERING):
                metrics = runner.val_loop.run()
            runner.model.train()
            runner.message_hub.update_info(BEFORE, _numbers(metrics))
        self._after = None

    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        """Keep the metrics of the last validation."""
        self._after = metrics or {}

    def after_train(self, runner: Any) -> None:
        """Log the metrics of the first and the last validation."""
        info = runner.message_hub.runtime_info
        if self._after is None or BEFORE not in info:
            return  # nothing was validated since, or the run was begun without this hook
        before, after = info[BEFORE], _numbers(self._after)
        lines = ['Validation before -> after training']
        # COCO's evaluation gives no metrics where nothing is detected.
        lines += [f'  {name}: {" -> ".join(f"{own[name]:.4f}" if name in own else "none" for own in (before, after))}'
                  for name in dict.fromkeys([*before, *after])]
        lines += [f'  {name}: {path}' for name, path in info.items() if name.startswith(('last_ckpt', 'best_ckpt'))]
        runner.logger.info('\n'.join(lines))

    def _check(self, runner: Any) -> None:
        if runner.val_loop is None:
            raise must_be('val_cfg', 'a validation loop with ValidateFirstHook', None)
        for hook in runner.hooks[runner.hooks.index(self):]:
            if isinstance(hook, (CalibrateFirstHook, CheckpointHook)):
                raise must_be('ValidateFirstHook.priority', f'lower than that of {type(hook).__name__} '
                              f"({hook.priority!r}), such as 'LOWEST', the default", self.priority)


@contextmanager
def _unnoticed_by(runner: Any, kinds: tuple[type[Hook], ...]) -> Iterator[None]:
    """Take hooks of these kinds out of the run for a while."""
    hooks = runner._hooks
    runner._hooks = [hook for hook in hooks if not isinstance(hook, kinds)]
    try:
        yield
    finally:
        runner._hooks = hooks


def _initialize_averages(runner: Any) -> None:
    """Give ``EMAHook`` the weights that training starts from; its average is a copy from before the initialisation."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.ema_model.module.load_state_dict(hook.src_model.state_dict())


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those of the metrics that are numbers."""
    return {name: float(value) for name, value in metrics.items()
            if isinstance(value, (int, float, np.number)) or isinstance(value, Tensor) and value.numel() == 1}
