"""BN calibration around the evaluation of a subnet, and the images that it is done with."""
from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from mmbignas.data.calibration_images import DEFAULT_IMAGES, CalibrationImages
from mmbignas.registry import HOOKS
from mmbignas.supernet.calibration import BNState, calibrate_bn


@HOOKS.register_module()
class BNCalibrationHook(Hook):
    """Calibrates the BN statistics of a subnet before its evaluation and puts the old ones back after it.

    It serves :class:`~mmbignas.evaluation.SubnetValLoop`; see :func:`~mmbignas.supernet.calibration.calibrate_bn`
    for what calibration does.

    The images are a fixed random choice: the same ones for every subnet, in every validation, in every run and with
    any number of processes, with the same random augmentations. They are loaded when they are first needed, and then
    stay in memory as the pipeline leaves them: before the data preprocessor, since 8-bit images take a quarter of the
    memory that normalised ones would. At 800x1333 that is about 3 MB an image, so 6.5 GB for 2,048 images, spread
    over the processes; four times that if the pipeline makes floats of them, as ``PhotoMetricDistortion`` does.
    Ground truth boxes and masks are not kept.

    Args:
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        dataloader: the config of a dataloader; its sampler is replaced. Default: ``train_dataloader`` of the config.

    Raises:
        ConfigError: for a number of images below 1 or a dataloader that is not a config; when the run starts, for a
            dataloader that is missing or names files that do not exist.
    """

    def __init__(self, num_images: int = DEFAULT_IMAGES, dataloader: Mapping[str, Any] | None = None) -> None:
        self.images = CalibrationImages(num_images, dataloader, 'BNCalibrationHook')
        self._state: BNState | None = None

    def before_run(self, runner: Any) -> None:
        """Find out which dataloader it is before anything slow.

        Args:
            runner: the runner.
        """
        self.images.resolve(runner.cfg)

    def before_subnet_eval(self, runner: Any, subnet_eval: Any) -> None:
        """Calibrate the model, if this evaluation asks for it.

        Args:
            runner: the runner; the subnet is applied to its model.
            subnet_eval: has ``name`` and ``calib_bn``.
        """
        if not subnet_eval.calib_bn:
            return
        batches = self.images.batches(runner.logger.info)
        state, begin = BNState(runner.model), time.time()
        calibrate_bn(runner.model, batches)
        self._state = state
        runner.logger.info(f'BN calibration of {subnet_eval.name}: {time.time() - begin:.1f} s')

    def after_subnet_eval(self, runner: Any, subnet_eval: Any) -> None:
        """Put the statistics back that the model had before the calibration.

        Args:
            runner: the runner.
            subnet_eval: as in :meth:`before_subnet_eval`.
        """
        if self._state is not None:
            self._state.restore()
            self._state = None
