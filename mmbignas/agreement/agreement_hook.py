"""Data, model and metrics are compared and tried out before anything slow."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from mmbignas.agreement.annotations import (
    categories_of,
    category_lines,
    image_lines,
    metric_categories,
    metric_file_lines,
)
from mmbignas.agreement.batches import batch_lines
from mmbignas.agreement.label_spaces import checkpoint_lines, label_lines
from mmbignas.agreement.trial_run import TrialFailure, evaluation_trial, train_trial
from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS
from mmbignas.supernet import Checkpoint
from mmbignas.utils.models import unwrapped

STAGES = ('train', 'val', 'test')


@HOOKS.register_module()
class AgreementHook(Hook):
    """Makes sure that data, model and metrics of a run fit together, before anything slow.

    First, without computing: the classes of training, validation and test data (also within wrappers), the heads'
    ``num_classes`` and the checkpoint's classes are the same, by number and by names; annotation files have their
    categories in the order of the classes, and what the metrics read; image files are there; there are batches. Then a
    few images go through training and evaluation once, with a copy of the model, which leaves no trace in weights,
    statistics or random states. Each time, all that is wrong is said at once, one line each.

    The loops of this package and its tools ``train.py`` and ``test.py`` have this hook; it stands in no config.

    Raises:
        ConfigError: with everything that is wrong.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._compared: set[str] = set()
        self._tried: set[str] = set()

    def before_run(self, runner: Any) -> None:
        """Compare what can be known without computing; the loops are built by now."""
        loops = {stage: loop for stage, loop in _loops(runner).items() if stage not in self._compared}
        self._compared |= {*loops}
        _raise(_comparison(runner, _loops(runner), loops))

    def after_load_checkpoint(self, runner: Any, checkpoint: Mapping[str, Any]) -> None:
        """Compare the classes of a checkpoint to resume from or to test."""
        loops = _loops(runner)
        if 'train' in loops and not runner._resume:
            return  # a training may begin with the weights of other classes
        meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
        classes = Checkpoint('', {}, dict(meta)).classes if isinstance(meta, Mapping) else None
        _raise(checkpoint_lines(classes, str(runner._load_from or 'the checkpoint'), _datasets(loops)))

    def before_train(self, runner: Any) -> None:
        """Try out training and validation, with the weights that the run begins with."""
        self.try_out(runner, 'train', 'val')

    def before_val(self, runner: Any) -> None:
        """Try out a validation that belongs to no training."""
        self.try_out(runner, 'val')

    def before_test(self, runner: Any) -> None:
        """Try out the test."""
        self.try_out(runner, 'test')

    def try_out(self, runner: Any, *stages: str) -> None:
        """Send a few images through the stages that are still to be tried out.

        Raises:
            ConfigError: with what fails, one line for each stage.
        """
        loops = {stage: loop for stage, loop in _loops(runner).items() if stage in stages and stage not in self._tried}
        self._tried |= {*loops}
        _raise(line for stage, loop in loops.items() for line in _trial(runner, stage, loop))


def agreement_of(runner: Any) -> AgreementHook:
    """The hook of a run, which gets one where it has none."""
    own = next((hook for hook in runner.hooks if isinstance(hook, AgreementHook)), None)
    if own is None:
        own = AgreementHook()
        runner.register_hook(own)
    return own


def _loops(runner: Any) -> dict[str, Any]:
    """Stage -> loop, of those that are built and have data."""
    loops = {stage: getattr(runner, f'_{stage}_loop', None) for stage in STAGES}
    return {stage: loop for stage, loop in loops.items()
            if isinstance(loop, BaseLoop) and isinstance(getattr(loop, 'dataloader', None), DataLoader)}


def _datasets(loops: Mapping[str, Any]) -> dict[str, Any]:
    return {f'{stage}_dataloader.dataset': loop.dataloader.dataset for stage, loop in loops.items()}


def _comparison(runner: Any, every: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong by what can be known without computing, of loops that were not looked at before."""
    if not new:
        return
    yield from label_lines(unwrapped(runner.model), _datasets(every))
    files = {stage: categories_of(loop.dataloader.dataset, f'{stage}_dataloader.dataset')
             for stage, loop in every.items()}
    for stage, loop in every.items():
        if isinstance(getattr(loop, 'evaluator', None), Evaluator):
            known = {own.by_label for own in files[stage]}
            files[stage] += [own for own in metric_categories(loop.evaluator, f'{stage}_evaluator')
                             if own.by_label not in known]
    yield from category_lines(files)
    for stage, loop in new.items():
        yield from batch_lines(loop.dataloader, f'{stage}_dataloader')
        yield from image_lines(loop.dataloader.dataset, f'{stage}_dataloader.dataset')
        if isinstance(getattr(loop, 'evaluator', None), Evaluator):
            yield from metric_file_lines(loop.evaluator, f'{stage}_evaluator')


def _trial(runner: Any, stage: str, loop: Any) -> Iterator[str]:
    """Why a stage cannot take its first images, in at most one line."""
    scorer: Any = getattr(loop, 'scorer', None)
    try:
        if stage == 'train':
            train_trial(runner)
        elif hasattr(scorer, 'trial'):
            scorer.trial()
        elif isinstance(getattr(loop, 'evaluator', None), Evaluator):
            evaluation_trial(runner, loop.dataloader, loop.evaluator, stage, getattr(loop, 'fp16', False))
    except TrialFailure as failure:
        yield str(failure)


def _raise(lines: Iterator[str]) -> None:
    """Raise one error for all lines."""
    found = list(dict.fromkeys(lines))
    if found:
        raise ConfigError('\n'.join(found))
