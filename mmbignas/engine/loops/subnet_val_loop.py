"""Validation and test of several subnets of one supernet."""
from __future__ import annotations

import json
import math
import os.path as osp
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, ValLoop
from mmengine.runner.amp import autocast
from terminaltables import AsciiTable
from torch import Tensor
from torch.utils.data import DataLoader

from mmbignas.engine.checks import check_dataset_files, check_widths
from mmbignas.engine.hooks import BNCalibrationHook
from mmbignas.errors import ConfigError
from mmbignas.registry import LOOPS
from mmbignas.space import Subnet
from mmbignas.supernet import Supernet, check_weights, parse_choices, read_checkpoint


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


@LOOPS.register_module()
class SubnetValLoop(ValLoop):
    """Evaluates subnets one after the other; serves as ``val_cfg`` and as ``test_cfg``.

    The metrics of each subnet get its name in front: ``max/coco/bbox_mAP``, or ``max_calib/coco/bbox_mAP`` where its
    BN statistics were calibrated. To MMEngine's hooks it is one validation with many metrics, so ``save_best`` takes
    any of them. Around each subnet the hook points ``before_subnet_eval`` and ``after_subnet_eval`` are fired, methods
    ``(self, runner, subnet_eval)`` of a hook with a :class:`SubnetEval`; BN calibration is the work of
    :class:`~mmbignas.engine.hooks.BNCalibrationHook`. The model computes as before afterwards.

    Each finished subnet is written at once as a line of ``subnets_val.jsonl`` (``subnets_test.jsonl``) in the run's
    folder; at the end a table is logged.

    Args:
        runner: the runner.
        dataloader: a dataloader or its config.
        evaluator: an evaluator or its config.
        subnets: ``max``, ``min``, ``middle``, ``random`` (the same ones each time), a number in the space, a .json or
            .yaml file, settings, or ``dict(name=..., subnet_settings=...)``.
        calib_bn: calibrate (``True``), do not (``False``), or evaluate each subnet both ways (``'both'``).
        fp16: evaluate in half precision.

    Raises:
        ConfigError: for subnets outside the space, calibration without a ``BNCalibrationHook``, data files that do
            not exist, or, in a test, a checkpoint that is not of this supernet.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list,
                 subnets: Sequence[str | Mapping[str, Any]] = ('max', 'min'), calib_bn: bool | str = True,
                 fp16: bool = False) -> None:
        stage = stage_of(runner, dataloader)
        if calib_bn not in (True, False, 'both'):
            raise ConfigError(f"{stage}_cfg.calib_bn: {calib_bn!r} is not allowed; allowed: True, False, 'both'")
        if calib_bn and not any(isinstance(hook, BNCalibrationHook) for hook in runner.hooks):
            raise ConfigError(f'{stage}_cfg.calib_bn: {calib_bn!r} needs a calibration hook; add '
                              "custom_hooks=[dict(type='mmbignas.BNCalibrationHook')], or set calib_bn=False")
        self.supernet = Supernet(runner.model)
        if stage == 'test' and runner._load_from is not None:
            # MMEngine loads what fits and goes on.
            check_weights(self.supernet.model, read_checkpoint(runner._load_from), more=True)
        check_widths(self.supernet)
        modes = (False, True) if calib_bn == 'both' else (bool(calib_bn),)
        self.evals = []
        for index, choice in enumerate(parse_choices(subnets, self.supernet.space, f'{stage}_cfg.subnets')):
            subnet = choice.draw(self.supernet.space, random.Random(index))
            self.evals += [SubnetEval(f'{choice.name}_calib' if mode else choice.name, subnet, mode) for mode in modes]
        for name, count in Counter(own.name for own in self.evals).items():
            if count > 1:
                raise ConfigError(f'{stage}_cfg.subnets: {name!r} would be the name of {count} evaluations, as '
                                  'calibrated ones end in _calib; allowed: other names')
        if isinstance(dataloader, dict):
            check_dataset_files(dataloader.get('dataset'), f'{stage}_dataloader.dataset')
        check_dataset_files(evaluator, f'{stage}_evaluator')  # COCO's has an ann_file of its own
        super().__init__(runner, dataloader, evaluator, fp16)

    def run(self) -> dict[str, float]:
        """Evaluate all subnets.

        Returns:
            dict: ``'<subnet>/<metric>'`` -> value. Where no subnet but another got a metric (COCO's evaluation gives
            none if nothing was detected), it is 0.
        """
        stage = 'test' if self.runner._test_loop is self else 'val'
        self.runner.call_hook(f'before_{stage}')
        self.runner.call_hook(f'before_{stage}_epoch')
        self.runner.model.eval()
        before = self.supernet.current
        results: dict[str, dict[str, float]] = {}
        try:
            for subnet_eval in self.evals:
                results[subnet_eval.name] = self._evaluate(subnet_eval, stage)
                self._record(subnet_eval, results[subnet_eval.name], stage)
        finally:
            self.supernet.apply(before)
        names = list(dict.fromkeys(name for metrics in results.values() for name in metrics))
        results = {subnet: {name: metrics.get(name, 0.) for name in names} for subnet, metrics in results.items()}
        self._report(results, names, stage)
        merged = {f'{subnet}/{name}': value for subnet, metrics in results.items() for name, value in metrics.items()}
        self.runner.call_hook(f'after_{stage}_epoch', metrics=merged)
        self.runner.call_hook(f'after_{stage}')
        return merged

    def _evaluate(self, subnet_eval: SubnetEval, stage: str) -> dict[str, float]:
        """Metrics of one subnet."""
        self.supernet.apply(subnet_eval.subnet)
        self.runner.call_hook('before_subnet_eval', subnet_eval=subnet_eval)
        try:
            for idx, data_batch in enumerate(self.dataloader):
                self.run_iter(idx, data_batch, stage)
            return self.evaluator.evaluate(len(self.dataloader.dataset))
        finally:
            self.runner.call_hook('after_subnet_eval', subnet_eval=subnet_eval)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any, stage: str = 'val') -> None:
        """Evaluate one batch of the current subnet.

        Args:
            idx: number of the batch.
            data_batch: a batch from the dataloader.
            stage: ``val`` or ``test``: whose hooks are called.
        """
        self.runner.call_hook(f'before_{stage}_iter', batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = self.runner.model.val_step(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(f'after_{stage}_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)

    def _iteration(self) -> int | None:
        """Iteration of the training; ``None`` in a test."""
        # Not runner.iter, which would build the training loop and its data set in a test.
        train_loop = self.runner._train_loop
        return train_loop.iter if isinstance(train_loop, BaseLoop) else None

    def _record_file(self, stage: str) -> str:
        return osp.join(self.runner.log_dir, f'subnets_{stage}.jsonl')

    @master_only
    def _record(self, subnet_eval: SubnetEval, metrics: Mapping[str, float], stage: str) -> None:
        """Append one finished subnet to the record."""
        line = dict(name=subnet_eval.name, iter=self._iteration(), calib_bn=subnet_eval.calib_bn,
                    subnet_settings=subnet_eval.subnet.to_dict(), metrics=json_metrics(metrics))
        with open(self._record_file(stage), 'a') as file:
            file.write(json.dumps(line, default=str, allow_nan=False) + '\n')

    @master_only
    def _report(self, results: Mapping[str, Mapping[str, float]], names: Sequence[str], stage: str) -> None:
        """Log one table of all subnets."""
        plain = {subnet: plain_metrics(metrics) for subnet, metrics in results.items()}
        numbers = [name for name in names if all(isinstance(own[name], (int, float)) for own in plain.values())]
        rows = [['subnet', *numbers]]
        rows += [[subnet, *(f'{metrics[name]:.3f}' for name in numbers)] for subnet, metrics in plain.items()]
        self.runner.logger.info(f'Subnets ({stage}), written to {self._record_file(stage)}\n{AsciiTable(rows).table}')


def stage_of(runner: Any, dataloader: Any) -> str:
    """``test`` for a loop that is built with this dataloader as ``test_cfg``, ``val`` for one as ``val_cfg``."""
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
