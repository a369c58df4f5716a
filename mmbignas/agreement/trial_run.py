"""A few real images through a model's training and evaluation, before anything slow, without a trace."""
from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict
from mmengine.runner.amp import autocast
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from mmbignas.agreement.batches import smallest_batch
from mmbignas.agreement.partial_evaluation import SilentMetric, restricted, silence, trial_evaluator
from mmbignas.data.fixed_images import ChosenImages
from mmbignas.data.leaves import built_levels
from mmbignas.errors import ConfigError
from mmbignas.utils.data_errors import DataError, one_line
from mmbignas.utils.models import unwrapped
from mmbignas.utils.random_states import preserved_rng, seed_cpu

TRAIN_IMAGES = 2  # batch normalisation needs more than one value of a channel
VAL_IMAGES = 4
ONE_VALUE = 'Expected more than 1 value per channel'
# What is told of evaluating a few images; other metrics may need more of them.
TOLD = ('mmdet.evaluation.metrics.coco_metric', 'mmpretrain.evaluation.metrics.single_label',
        'mmpretrain.evaluation.metrics.multi_label')


class TrialFailure(Exception):
    """What does not work; the text begins with the place in the config."""


def train_trial(runner: Any) -> None:
    """Compute the losses of a few training images, as many as the smallest batch has, with a copy of the model.

    Where the passes of a training see several image sizes, it is the smallest. Everything stays as it is: weights,
    statistics, random states and what transforms of the pipeline remember.

    Args:
        runner: the runner, about to train. Models with a ``train_step`` of their own or several optimizers, and data
            that can only be iterated over, are passed over.

    Raises:
        TrialFailure: when an image cannot be loaded, or the losses cannot be computed.
    """
    loop, original = runner.train_loop, unwrapped(runner.model)
    dataset = loop.dataloader.dataset
    steps = hasattr(loop, 'supernet') or getattr(type(original), 'train_step', None) is BaseModel.train_step
    steps = steps and not isinstance(runner.optim_wrapper, OptimWrapperDict)
    if isinstance(dataset, IterableDataset) or loop.dataloader.batch_sampler is None or not steps:
        return
    smallest = smallest_batch(loop.dataloader, getattr(loop, 'max_iters', float('inf')))
    count = min(smallest, TRAIN_IMAGES, len(dataset))
    model = _copied(original)
    if model is None:
        return

    def losses(images: list[Any]) -> None:
        own: Any = model
        with runner.optim_wrapper.optim_context(own):
            data = own.data_preprocessor(loop.dataloader.collate_fn(copy.deepcopy(images)), True)
            data = loop.at_smallest_size(data) if hasattr(loop, 'at_smallest_size') else data
            own.parse_losses(own._run_forward(data, mode='loss'))

    with _without_trace(model.train(), dataset), torch.no_grad():
        images = _load(dataset, range(count), 'train_dataloader.dataset')
        _attempt(lambda: losses(images), 'model', lambda: _batch_problem(loop.dataloader, losses, images, smallest))


def _batch_problem(dataloader: DataLoader, losses: Callable[[list[Any]], None], images: list[Any],
                   smallest: int) -> str | None:
    """What to do about a single value per channel, where it is the batch's fault."""
    if len(images) > 1 or len(dataloader.dataset) < 2:  # type: ignore[arg-type]
        return None
    losses([*images, *images])
    size = getattr(dataloader.batch_sampler, 'batch_size', 1)
    if smallest < size:
        return (f'train_dataloader.drop_last must be True, or batch_size another, since the last of batches of {size} '
                'has one image, of which batch normalisation has a single value per channel')
    return ('train_dataloader.batch_size must be at least 2, since batch normalisation has a single value per channel '
            'of one image')


def evaluation_trial(runner: Any, dataloader: DataLoader, evaluator: Evaluator, stage: str, fp16: bool = False,
                     world: Callable[[], Any] = nullcontext) -> list[str]:
    """Evaluate a few images, some of each data set, with a copy of the model.

    In all processes the images are the same. Model, metrics and random states stay as they are; nothing is written.

    Args:
        runner: the runner.
        dataloader: of the evaluation. There is no trial for data that can only be iterated over.
        evaluator: of the evaluation. Metrics of one's own see nothing.
        stage: ``val`` or ``test``.
        fp16: as the loop says.
        world: makes the context in which the evaluation runs.

    Returns:
        list: the names that its metrics gave.

    Raises:
        TrialFailure: when an image cannot be loaded, predicted or evaluated.
    """
    dataset: Any = dataloader.dataset
    model = None if isinstance(dataset, IterableDataset) or not len(dataset) else _copied(unwrapped(runner.model))
    if model is None:
        return []
    chosen = ChosenImages(dataset, _spread(dataset))
    own, key = trial_evaluator(evaluator, chosen), f'{stage}_dataloader.dataset'
    with ExitStack() as stack:
        for context in (world(), _without_trace(model.eval(), dataset), silence(runner.logger, logging.CRITICAL),
                        torch.no_grad()):
            stack.enter_context(context)
        batch = dataloader.collate_fn(_load(chosen, range(len(chosen)), key))
        outputs: Any = []

        def predict() -> None:
            with autocast(enabled=fp16):
                step = model.test_step if stage == 'test' else model.val_step
                outputs.extend(step(batch))

        if not _attempt(predict, 'model'):
            return []
        _attempt(lambda: own.process(data_samples=outputs, data_batch=batch), f'{stage}_evaluator')
        names: list[str] = []
        try:
            stack.enter_context(restricted(own, chosen, range(len(chosen)), stage))
            _attempt(lambda: names.extend(own.evaluate(len(chosen))), f'{stage}_evaluator')
        except ConfigError:  # a metric that wants all images
            pass
        except TrialFailure:
            if all(isinstance(metric, SilentMetric) or type(metric).__module__ in TOLD for metric in own.metrics):
                raise
        return names


def _spread(dataset: Any) -> list[int]:
    """The first images of a data set, or of each of several."""
    ends = getattr(dataset, 'cumulative_sizes', None) or [len(dataset)]
    each = max(1, VAL_IMAGES // len(ends))
    return [index for start, end in zip([0, *ends], ends) for index in range(start, min(start + each, end))]


def _copied(original: Any) -> Any:
    """A copy, since of a model more than weights may change: counters, histories. ``None`` where there is none."""
    try:
        return copy.deepcopy(original)
    except Exception:  # whatever it may hold
        return None


def _load(dataset: Any, indices: Sequence[int], key: str) -> list[Any]:
    try:
        return [dataset[index] for index in indices]
    except DataError as error:
        raise TrialFailure(f'{key}: {error}') from error
    except Exception as error:  # of many kinds, depending on file and transform
        raise TrialFailure(f'{key}: {_file_of(dataset, indices)}: cannot be loaded, {one_line(error)}') from error


def _file_of(dataset: Any, indices: Sequence[int]) -> str:
    """The file of the first image that cannot be loaded."""
    for index in indices:
        try:
            dataset[index]
        except Exception:
            info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
            return str(info.get('img_path', f'image {index}'))
    return 'an image'


def _attempt(step: Callable[[], Any], key: str, advice: Callable[[], str | None] = lambda: None) -> bool:
    """Run a step of a trial; ``False`` if it needs something that a hook may only give it later.

    Raises:
        TrialFailure: when it fails.
    """
    try:
        step()
    except (AttributeError, NotImplementedError):
        return False
    except Exception as error:  # what models and metrics raise
        reason = None
        if ONE_VALUE in str(error):
            try:
                reason = advice()
            except Exception:  # so it is not the number of images
                reason = None
        raise TrialFailure(reason or f'{key}: does not take the first images, {one_line(error)}') from error
    return True


@contextmanager
def _without_trace(model: nn.Module, dataset: Any) -> Iterator[None]:
    """Put the random states back at the end, of GPUs too, and what transforms remember; the same draws everywhere."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    levels = [own for _, own in built_levels(dataset, '') if 'pipeline' in getattr(own, '__dict__', {})]
    before = [own.__dict__['pipeline'] for own in levels]
    with preserved_rng(), torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        seed_cpu(0)
        try:
            for own, pipeline in zip(levels, before):
                own.__dict__['pipeline'] = _copied(pipeline) or pipeline
            yield
        finally:
            for own, pipeline in zip(levels, before):
                own.__dict__['pipeline'] = pipeline
