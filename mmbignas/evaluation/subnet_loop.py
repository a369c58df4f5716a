"""What all loops that evaluate subnets have in common."""
from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, ValLoop
from mmengine.runner.amp import autocast
from torch import Tensor
from torch.utils.data import DataLoader

from mmbignas.data.check_data import check_dataset_files
from mmbignas.data.resizing import at_resolution, check_interpolation
from mmbignas.errors import ConfigError
from mmbignas.evaluation.bn_calibration_hook import BNCalibrationHook
from mmbignas.space import ImageSize, Subnet
from mmbignas.supernet import Supernet, check_weights, read_checkpoint
from mmbignas.supernet.check_widths import check_widths


@dataclass(frozen=True)
class SubnetEval:
    """One evaluation of one subnet.

    Args:
        name: prefix of its metrics: the subnet's name, with ``_calib`` if it is calibrated.
        subnet: the subnet.
        calib_bn: whether its BN statistics are calibrated first.
    """

    name: str
    subnet: Subnet
    calib_bn: bool


class SubnetLoop(ValLoop):
    """Evaluates one subnet after the other; serves as ``val_cfg`` and as ``test_cfg``.

    Around each evaluation the hook points ``before_subnet_eval`` and ``after_subnet_eval`` are fired, methods
    ``(self, runner, subnet_eval)`` of a hook with a :class:`SubnetEval`; BN calibration is the work of
    :class:`~mmbignas.evaluation.BNCalibrationHook`.

    Args:
        runner: the runner.
        dataloader: a dataloader or its config.
        evaluator: an evaluator or its config.
        calib_bn: whether there are evaluations with calibration.
        fp16: evaluate in half precision.
        interpolation_type: how images are resized for subnets with an image size of their own, one of
            :data:`~mmbignas.data.resizing.INTERPOLATIONS`.

    Raises:
        ConfigError: for an unknown interpolation, calibration without a ``BNCalibrationHook``, data files that do not
            exist, or, in a test, a checkpoint that is not of this supernet.

    Attributes:
        supernet: the model.
    """

    _only_size: ImageSize | None = None  # of a list with a single one

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list,
                 calib_bn: bool, fp16: bool, interpolation_type: str = 'bicubic') -> None:
        stage = stage_of(runner, dataloader)
        self.interpolation = check_interpolation(interpolation_type, f'{stage}_cfg.interpolation_type')
        if calib_bn and not any(isinstance(hook, BNCalibrationHook) for hook in runner.hooks):
            raise ConfigError(f'{stage}_cfg.calib_bn: {calib_bn!r} needs a calibration hook; add '
                              "custom_hooks=[dict(type='mmbignas.BNCalibrationHook')], or set calib_bn=False")
        self.supernet = Supernet(runner.model)
        if stage == 'test' and runner._load_from is not None:
            # MMEngine loads what fits and goes on.
            check_weights(self.supernet.model, read_checkpoint(runner._load_from), more=True)
        check_widths(self.supernet)
        if isinstance(dataloader, dict):
            check_dataset_files(dataloader.get('dataset'), f'{stage}_dataloader.dataset')
        check_dataset_files(evaluator, f'{stage}_evaluator')  # COCO's has an ann_file of its own
        super().__init__(runner, self._prepared(dataloader), evaluator, fp16)

    def _prepared(self, dataloader: Any) -> Any:
        """The dataloader or its config as it is used."""
        return dataloader

    @property
    def stage(self) -> str:
        """As what the loop runs: ``val`` or ``test``."""
        return 'test' if self.runner._test_loop is self else 'val'

    def _at_its_size(self, subnet: Subnet) -> AbstractContextManager[None]:
        """Let the model see images of the subnet's own size, or of the only one, where there is such."""
        return at_resolution(self.runner.model, subnet.image_size or self._only_size, self.interpolation,
                             f'{self.stage}_cfg.image_size')

    def _evaluate(self, subnet_eval: SubnetEval) -> dict[str, float]:
        """Metrics of one subnet."""
        self.supernet.apply(subnet_eval.subnet)
        self.runner.call_hook('before_subnet_eval', subnet_eval=subnet_eval)
        try:
            for idx, data_batch in enumerate(self.dataloader):
                self.run_iter(idx, data_batch)
            return self.evaluator.evaluate(len(self.dataloader.dataset))
        finally:
            self.runner.call_hook('after_subnet_eval', subnet_eval=subnet_eval)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> Any:
        """Evaluate one batch of the current subnet.

        Args:
            idx: number of the batch.
            data_batch: a batch from the dataloader.

        Returns:
            The model's predictions.
        """
        with autocast(enabled=self.fp16):
            outputs = self.runner.model.val_step(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        return outputs

    def _iteration(self) -> int | None:
        """Iteration of the training; ``None`` in a test."""
        # Not runner.iter, which would build the training loop and its data set in a test.
        train_loop = self.runner._train_loop
        return train_loop.iter if isinstance(train_loop, BaseLoop) else None


def stage_of(runner: Any, dataloader: Any) -> str:
    """``test`` for a loop that is being built with this dataloader as ``test_cfg``, ``val`` for one as ``val_cfg``."""
    return 'test' if dataloader is runner._test_dataloader else 'val'


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON can hold them: numbers or nested lists of them for tensors and arrays, others as they are."""
    return {name: value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value
            for name, value in metrics.items()}


def json_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as any JSON reader takes them: ``None`` for what is not finite, as of a class without boxes."""

    def finite(value: Any) -> Any:
        if isinstance(value, list):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: finite(value) for name, value in plain_metrics(metrics).items()}


def number_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The names of the metrics that are numbers."""
    return [name for name, value in plain_metrics(metrics).items() if isinstance(value, (int, float))]


@contextmanager
def silence(logger: logging.Logger, level: int = logging.WARNING) -> Iterator[None]:
    """Let nothing below a level through, of the logger, and nothing of what prints, as pycocotools does.

    Args:
        logger: the logger.
        level: of what is logged nevertheless.
    """
    before = logger.level
    logger.setLevel(level)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
