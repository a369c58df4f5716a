"""BN calibration of one network before it is trained."""
from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from mmbignas.data.calibration_images import DEFAULT_IMAGES, CalibrationImages
from mmbignas.registry import HOOKS
from mmbignas.supernet import calibrate_bn


@HOOKS.register_module()
class CalibrateFirstHook(Hook):
    """Calibrates the BN statistics before the first iteration, for a subnet that starts from a supernet's weights.

    The supernet's statistics are a mixture of those of all its subnets. It is done once, not after a resume: from then
    on the statistics are those that training keeps. See :func:`~mmbignas.supernet.calibrate_bn` for what is done and
    :class:`~mmbignas.data.calibration_images.CalibrationImages` for the choice of images.

    Args:
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        dataloader: the config of a dataloader; its sampler is replaced. Default: ``train_dataloader`` of the config.

    Raises:
        ConfigError: for a number of images below 1 or a dataloader that is not a config; before the first iteration,
            for a dataloader that is missing or names files that do not exist.
    """

    def __init__(self, num_images: int = DEFAULT_IMAGES, dataloader: Mapping[str, Any] | None = None) -> None:
        self.images = CalibrationImages(num_images, dataloader, 'CalibrateFirstHook')

    def before_train(self, runner: Any) -> None:
        """Calibrate, unless training goes on.

        Args:
            runner: the runner.
        """
        if runner.iter > 0:
            return
        batches, begin = self.images.resolve(runner.cfg).load(runner.logger.info), time.time()
        calibrate_bn(runner.model, batches)
        runner.logger.info(f'BN calibration before training: {time.time() - begin:.1f} s')
