"""BN calibration of one network before it is trained."""
from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from mmbignas.data.calibration_images import (
    DEFAULT_IMAGES,
    calibration_dataloader,
    check_dataloader,
    load_calibration_images,
)
from mmbignas.registry import HOOKS
from mmbignas.supernet import calibrate_bn
from mmbignas.utils.checks import check_count


@HOOKS.register_module()
class CalibrateFirstHook(Hook):
    """Calibrates the BN statistics before the first iteration, for a subnet that starts from a supernet's weights.

    The supernet's statistics are a mixture of those of all its subnets. It is done once, not after a resume: from then
    on the statistics are those that training keeps. See :func:`~mmbignas.supernet.calibrate_bn` for what is done and
    :func:`~mmbignas.data.calibration_images.load_calibration_images` for the choice of images.

    Args:
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        dataloader: the config of a dataloader; its sampler is replaced. Default: ``train_dataloader`` of the config.

    Raises:
        ConfigError: for a number of images below 1 or a dataloader that is not a config; before the first iteration,
            for a dataloader that is missing or names files that do not exist.
    """

    def __init__(self, num_images: int = DEFAULT_IMAGES, dataloader: Mapping[str, Any] | None = None) -> None:
        self.num_images = check_count(num_images, 'CalibrateFirstHook.num_images')
        if dataloader is not None:
            check_dataloader(dataloader, 'CalibrateFirstHook.dataloader')
        self.dataloader = dataloader

    def before_train(self, runner: Any) -> None:
        """Calibrate, unless training goes on.

        Args:
            runner: the runner.
        """
        if runner.iter > 0:
            return
        dataloader = calibration_dataloader(self.dataloader, runner.cfg, 'CalibrateFirstHook.dataloader')
        batches, begin = load_calibration_images(dataloader, self.num_images, runner.logger.info), time.time()
        calibrate_bn(runner.model, batches)
        runner.logger.info(f'BN calibration before training: {time.time() - begin:.1f} s')
