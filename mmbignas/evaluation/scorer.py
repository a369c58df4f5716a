"""The accuracy of one subnet after the other."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, ValLoop
from mmengine.runner.amp import autocast
from torch.utils.data import DataLoader

from mmbignas.agreement import agreement_of
from mmbignas.agreement.partial_evaluation import restricted, silence
from mmbignas.agreement.trial_run import evaluation_trial
from mmbignas.data.check_data import check_dataset_files
from mmbignas.data.fixed_images import with_chosen_images
from mmbignas.data.pipeline_size import pipeline_size
from mmbignas.data.resizing import INTERPOLATION, at_resolution
from mmbignas.evaluation.bn_calibration_hook import BNCalibrationHook
from mmbignas.evaluation.brief_finetuning import BriefFinetuning
from mmbignas.evaluation.drawn_predictions import drawn_apart
from mmbignas.space import ImageSize, Subnet
from mmbignas.supernet import Supernet, check_weights, read_checkpoint
from mmbignas.supernet.check_widths import check_widths
from mmbignas.utils.adaptations import exact_metrics
from mmbignas.utils.data_errors import data_errors_explained
from mmbignas.utils.distributed import Alone
from mmbignas.utils.models import training_flags_kept
from mmbignas.utils.output_paths import written_apart
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.rules import boolean, check_options, integer, must_be, one_of

RULES = dict(fp16=boolean(), parallel=one_of(('images', 'subnet')), val_images=integer(1).or_none(), seed=integer(0),
             interpolation_type=INTERPOLATION)


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


class SubnetScorer:
    """Finds out how good subnets are; every loop that evaluates subnets owns one.

    The loop says which subnets in which order, and what is written. The scorer applies a subnet, lets the model see
    images of the subnet's size, and puts the data through it. Around that it fires the hook points
    ``before_subnet_eval`` and ``after_subnet_eval``, methods ``(self, runner, subnet_eval)`` of a hook with a
    :class:`SubnetEval`; BN calibration is the work of :class:`~mmbignas.evaluation.BNCalibrationHook`. In a loop::

        with self.scorer.running() as metrics:
            for subnet_eval in self.evals:
                metrics[subnet_eval.name] = self.scorer.evaluate(subnet_eval)['coco/bbox_mAP']

    Args:
        runner, dataloader, evaluator: as MMEngine gives them to a loop.
        calib_bn: whether there are evaluations with calibration.
        fp16: evaluate in half precision.
        only_size: height and width in pixels of the images of all subnets without a size of their own; ``None`` for
            images as they are.
        interpolation_type: how images are resized, one of :data:`~mmbignas.data.resizing.INTERPOLATIONS`.
        several: whether more than one evaluation is to come, so that metrics that write files do it apart.
        many: for loops that compare many subnets. Metrics then have all their digits, also where MMDetection rounds; no
            hooks are called around batches; after the first subnet nothing is logged, since it is the same each time;
            and the workers of the dataloader are kept.
        parallel: with several processes, ``images``: all evaluate the same subnet, each its share of the images; or
            ``subnet``: each evaluates subnets of its own.
        val_images: evaluate on so many images, a fixed choice that depends on ``seed`` alone; ``None`` for all.
        seed: of that choice.
        sample_with_finetune: train each subnet for a few iterations first, see
            :class:`~mmbignas.evaluation.brief_finetuning.BriefFinetuning`.

    Raises:
        ConfigError: for options that are not allowed, calibration without a ``BNCalibrationHook``, data files that do
            not exist, or, in a test, a checkpoint that is not of this supernet.

    Attributes:
        supernet: the model.
        dataloader: the dataloader.
        evaluator: the evaluator.
        finetuning: the brief training of each subnet; ``None`` for none.
        own_world: makes a context in which each process works alone, where each evaluates subnets of its own.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list, *,
                 calib_bn: bool = True, fp16: bool = False, only_size: ImageSize | None = None,
                 interpolation_type: str = 'bicubic', several: bool = True, many: bool = False,
                 parallel: str = 'images', val_images: int | None = None, seed: int = 0,
                 sample_with_finetune: Any = False) -> None:
        stage = stage_of(runner, dataloader)
        key = f'{stage}_cfg'
        check_options(key, locals(), RULES)
        self.interpolation = interpolation_type
        self.runner, self.fp16, self.only_size = runner, fp16, only_size
        self.several, self.many, self.parallel = several, many, parallel
        if calib_bn and not any(isinstance(hook, BNCalibrationHook) for hook in runner.hooks):
            raise must_be(f'{key}.calib_bn', "False without custom_hooks=[dict(type='mmbignas.BNCalibrationHook')]",
                          calib_bn)
        self.supernet = Supernet(runner.model)
        if stage == 'test' and runner._load_from is not None:
            # MMEngine loads what fits and goes on.
            check_weights(self.supernet.model, read_checkpoint(runner._load_from), more=True)
        check_widths(self.supernet, only_size or pipeline_size(runner.cfg))
        if isinstance(dataloader, dict):
            check_dataset_files(dataloader.get('dataset'), f'{stage}_dataloader.dataset')
        check_dataset_files(evaluator, f'{stage}_evaluator')  # COCO's has an ann_file of its own
        alone: Any = Alone() if parallel == 'subnet' or sample_with_finetune else nullcontext
        self.own_world = alone if parallel == 'subnet' else nullcontext
        self.finetuning = None if sample_with_finetune is False else BriefFinetuning(
            sample_with_finetune, runner, f'{key}.sample_with_finetune', alone)
        self._part, self._quiet = False, False
        self._names: list[str] | None = None
        with self.own_world(), data_errors_explained():
            if many or val_images is not None:
                dataloader, chosen = with_chosen_images(dataloader, val_images, seed, f'{key}.val_images')
                self._part = chosen is not None
            built = ValLoop(runner, dataloader, evaluator, fp16)  # MMEngine's way from configs to data and metrics
            self.dataloader, self.evaluator = built.dataloader, built.evaluator
        self._agreement = agreement_of(runner)

    @property
    def stage(self) -> str:
        """What the loop that owns the scorer runs as: ``val`` or ``test``."""
        return 'test' if getattr(self.runner._test_loop, 'scorer', None) is self else 'val'

    @property
    def iteration(self) -> int | None:
        """Iteration of the training; ``None`` in a test."""
        # Not runner.iter, which would build the training loop and its data set in a test.
        train_loop = self.runner._train_loop
        return train_loop.iter if isinstance(train_loop, BaseLoop) else None

    @contextmanager
    def running(self) -> Iterator[dict[str, Any]]:
        """One validation or test, to MMEngine's hooks too.

        Weights, statistics, training flags, the current subnet and the random states (of the CPU) are the same
        afterwards as before, also after an exception.

        Yields:
            dict: to be filled with the metrics for the hooks.
        """
        stage, metrics = self.stage, dict[str, Any]()
        with training_flags_kept(self.runner.model):
            self.runner.call_hook(f'before_{stage}')
            self.runner.call_hook(f'before_{stage}_epoch')
            self.runner.model.eval()
            before = self.supernet.current
            try:
                with preserved_rng():
                    yield metrics
            finally:
                self.supernet.apply(before)
            self.runner.call_hook(f'after_{stage}_epoch', metrics=metrics)
            self.runner.call_hook(f'after_{stage}')

    def evaluate(self, subnet_eval: SubnetEval) -> dict[str, Any]:
        """The metrics of a subnet, within :meth:`running`; COCO's evaluation gives none where nothing was detected."""
        subnet, runner = subnet_eval.subnet, self.runner
        with ExitStack() as stack:
            stack.enter_context(self.own_world())
            stack.enter_context(at_resolution(runner.model, subnet.image_size or self.only_size, self.interpolation,
                                              f'{self.stage}_cfg.image_size'))
            if self.several:
                stack.enter_context(written_apart(self.evaluator.metrics, subnet_eval.name))
            if self.many:
                stack.enter_context(exact_metrics(self.evaluator))
            else:
                stack.enter_context(drawn_apart(runner.hooks, subnet_eval.name))
            if self._quiet:
                stack.enter_context(silence(runner.logger))
            if self._part:
                whole = self.dataloader.dataset
                stack.enter_context(restricted(self.evaluator, whole, range(len(whole)), self.stage))
            self.supernet.apply(subnet)
            if self.finetuning is not None:
                stack.enter_context(self.finetuning())
            runner.call_hook('before_subnet_eval', subnet_eval=subnet_eval)
            try:
                for idx, data_batch in enumerate(self.dataloader):
                    self._evaluate_batch(dict(batch_idx=idx, data_batch=data_batch))
                metrics: dict[str, Any] = self.evaluator.evaluate(len(self.dataloader.dataset))
            finally:
                runner.call_hook('after_subnet_eval', subnet_eval=subnet_eval)
        self._quiet = self.many
        return metrics

    def _evaluate_batch(self, own: dict[str, Any]) -> None:
        if not self.many:
            self.runner.call_hook(f'before_{self.stage}_iter', **own)
        outputs = self._predict(self.evaluator, own['data_batch'])
        if not self.many:
            self.runner.call_hook(f'after_{self.stage}_iter', **own, outputs=outputs)

    @torch.no_grad()
    def _predict(self, evaluator: Evaluator, data_batch: Any) -> Any:
        with autocast(enabled=self.fp16):
            outputs = self.runner.model.val_step(data_batch)
        evaluator.process(data_samples=outputs, data_batch=data_batch)
        return outputs

    def trial(self) -> list[str]:
        """The names that the evaluator's metrics give for a few images, with the model as it is; tried out once.

        See :func:`~mmbignas.agreement.trial_run.evaluation_trial`.

        Raises:
            TrialFailure: when the images cannot be loaded, predicted or evaluated.
        """
        if self._names is None:
            self._names = evaluation_trial(self.runner, self.dataloader, self.evaluator, self.stage, self.fp16,
                                           self.own_world)
        return self._names

    def try_out(self) -> None:
        """Make sure that data, model and metrics fit together, for loops that do something slow before all others.

        Raises:
            ConfigError: with what is wrong.
        """
        self._agreement.try_out(self.runner, self.stage)


def stage_of(runner: Any, dataloader: Any) -> str:
    """``test`` for a loop that is being built with this dataloader as ``test_cfg``, ``val`` for one as ``val_cfg``."""
    return 'test' if dataloader is runner._test_dataloader else 'val'
