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

    It serves the loops that evaluate subnets; see :func:`~mmbignas.supernet.calibration.calibrate_bn` for what
    calibration does. The images are a fixed choice, the same ones for every subnet and in every run. They are loaded
    when they are first needed, and then stay in memory. At 800x1333 that is about 3 MB per image, so 6.5 GB for 2,048
    images, spread over the processes; four times that if the pipeline makes floats of them, as
    ``PhotoMetricDistortion`` does.

    Args:
        num_images, dataloader: see :class:`~mmbignas.data.calibration_images.CalibrationImages`.

    Raises:
        ConfigError: for values that are not allowed; when the run starts, for a dataloader that is missing or names
            files that do not exist.
    """

    needs_sandwich = True  # means nothing in the training of one network

    def __init__(self, num_images: int = DEFAULT_IMAGES, dataloader: Mapping[str, Any] | None = None) -> None:
        self.images = CalibrationImages(num_images, dataloader, 'BNCalibrationHook')
        self._state: BNState | None = None

    def before_run(self, runner: Any) -> None:
        """Find out which dataloader it is before anything slow."""
        self.images.resolve(runner.cfg)

    def before_subnet_eval(self, runner: Any, subnet_eval: Any) -> None:
        """Calibrate the subnet that is applied, if its evaluation asks for it."""
        if not subnet_eval.calib_bn:
            return
        batches = self.images.batches(runner.logger.info)
        state, begin = BNState(runner.model), time.time()
        calibrate_bn(runner.model, batches)
        self._state = state
        runner.logger.info(f'BN calibration of {subnet_eval.name}: {time.time() - begin:.1f} s')

    def after_subnet_eval(self, runner: Any, subnet_eval: Any) -> None:
        """Put the statistics back that the model had before the calibration."""
        if self._state is not None:
            self._state.restore()
            self._state = None
