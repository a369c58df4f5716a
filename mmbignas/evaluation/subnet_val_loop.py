"""Validation and test of several subnets of one supernet."""
from __future__ import annotations

import json
import os.path as osp
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import master_only
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop
from terminaltables import AsciiTable
from torch.utils.data import DataLoader

from mmbignas.data import read_size_list
from mmbignas.evaluation.metrics import completed, json_metrics, plain_metrics
from mmbignas.evaluation.scorer import SubnetEval, SubnetScorer, stage_of
from mmbignas.registry import LOOPS
from mmbignas.supernet import Supernet, parse_choices
from mmbignas.utils.files import writing
from mmbignas.utils.metric_values import format_metric
from mmbignas.utils.rules import must_be, one_of


@LOOPS.register_module()
class SubnetValLoop(BaseLoop):
    """Evaluates subnets one after the other; serves as ``val_cfg`` and as ``test_cfg``.

    The metrics of each subnet get its name in front: ``max/coco/bbox_mAP``, or ``max_calib/coco/bbox_mAP`` where its
    BN statistics were calibrated. To MMEngine's hooks it is one validation with many metrics, so ``save_best`` takes
    any of them. Hook points, and what stays the same: see :class:`~mmbignas.evaluation.scorer.SubnetScorer`.

    Hooks that draw predictions into a folder do it in one below it for each evaluation, called like its metrics; where
    there are several evaluations, so do metrics that write files.
    Each finished subnet is written at once as a line of ``subnets_val.jsonl`` (``subnets_test.jsonl``) in the run's
    folder; at the end a table is logged.

    Args:
        runner, dataloader, evaluator: as MMEngine gives them to a loop.
        subnets: ``max``, ``min``, ``middle``, ``random`` (the same ones each time), a number in the space, a .json or
            .yaml file, settings, or ``dict(name=..., subnet_settings=...)``.
        calib_bn: calibrate (``True``), do not (``False``), or evaluate each subnet both ways (``'both'``).
        fp16: evaluate in half precision.
        image_size: a list of ``[height, width]`` in pixels to choose from, where the subnets were trained in several
            image sizes: each is evaluated in its own, and all in it if there is but one. ``None`` for the images as
            they are.
        interpolation_type: how they are resized, one of :data:`~mmbignas.data.resizing.INTERPOLATIONS`.

    Raises:
        ConfigError: for subnets outside the space, calibration without a ``BNCalibrationHook``, data files that do
            not exist, or, in a test, a checkpoint that is not of this supernet.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list,
                 subnets: Sequence[str | Mapping[str, Any]] = ('max', 'min'), calib_bn: bool | str = True,
                 fp16: bool = False, image_size: Any = None, interpolation_type: str = 'bicubic') -> None:
        key = f'{stage_of(runner, dataloader)}_cfg'
        one_of((True, False, 'both')).check(calib_bn, f'{key}.calib_bn')
        supernet = Supernet(runner.model)
        space, only_size = supernet.space, None
        if image_size is not None:
            sizes = read_size_list(supernet.model, image_size, f'{key}.image_size')
            space = space.with_image_sizes(sizes)
            only_size = sizes[0] if len(sizes) == 1 else None
        modes = (False, True) if calib_bn == 'both' else (bool(calib_bn),)
        self.evals = []
        for index, choice in enumerate(parse_choices(subnets, space, f'{key}.subnets')):
            subnet = choice.draw(space, random.Random(index))
            self.evals += [SubnetEval(f'{choice.name}_calib' if mode else choice.name, subnet, mode) for mode in modes]
        twice = [name for name, count in Counter(own.name for own in self.evals).items() if count > 1]
        if twice:
            raise must_be(f'{key}.subnets', 'a list of different names, those of calibrated ones with _calib added',
                          f'{", ".join(twice)} twice')
        self.scorer = SubnetScorer(runner, dataloader, evaluator, calib_bn=bool(calib_bn), fp16=fp16,
                                   only_size=only_size, interpolation_type=interpolation_type,
                                   several=len(self.evals) > 1)
        super().__init__(runner, self.scorer.dataloader)
        self.evaluator = self.scorer.evaluator

    def run(self) -> dict[str, float]:
        """Evaluate all subnets.

        Returns:
            dict: ``'<subnet>/<metric>'`` -> value, see :func:`~mmbignas.evaluation.metrics.completed`.
        """
        results: dict[str, dict[str, float]] = {}
        with self.scorer.running() as merged:
            for subnet_eval in self.evals:
                results[subnet_eval.name] = self.scorer.evaluate(subnet_eval)
                self._record(subnet_eval, results[subnet_eval.name])
            results = dict(zip(results, completed(list(results.values()))))
            self._report(results, list(next(iter(results.values()), ())))
            merged.update({f'{subnet}/{name}': value
                           for subnet, metrics in results.items() for name, value in metrics.items()})
        return merged

    @property
    def _record_file(self) -> str:
        return osp.join(self.runner.log_dir, f'subnets_{self.scorer.stage}.jsonl')

    @master_only
    def _record(self, subnet_eval: SubnetEval, metrics: Mapping[str, float]) -> None:
        """Append one finished subnet to the record."""
        line = dict(name=subnet_eval.name, iter=self.scorer.iteration, calib_bn=subnet_eval.calib_bn,
                    subnet_settings=subnet_eval.subnet.to_dict(), metrics=json_metrics(metrics))
        with writing(self._record_file), open(self._record_file, 'a') as file:
            file.write(json.dumps(line, default=str, allow_nan=False) + '\n')

    @master_only
    def _report(self, results: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
        """Log one table of all subnets."""
        plain = {subnet: plain_metrics(metrics) for subnet, metrics in results.items()}
        numbers = [name for name in names if all(isinstance(own[name], (int, float)) for own in plain.values())]
        rows = [['subnet', *numbers]]
        rows += [[subnet, *(format_metric(metrics[name], 3) for name in numbers)] for subnet, metrics in plain.items()]
        self.runner.logger.info(f'Subnets ({self.scorer.stage}), written to {self._record_file}\n'
                                f'{AsciiTable(rows).table}')
