"""A few iterations of training of one subnet, from the supernet's weights, which stay as they are."""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from numbers import Real
from typing import Any

import torch
from mmengine.optim import build_optim_wrapper

from mmbignas.data.check_data import check_dataset_files
from mmbignas.data.fixed_images import load_fixed_images
from mmbignas.utils.models import training_flags_kept, unwrapped
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.rules import check_keys, integer, must_be

DEFAULT_ITERS = 20
LR_FACTOR = 0.1  # of the supernet's learning rate, as in fine-tuning


class BriefFinetuning:
    """Trains the current subnet for a few iterations, and puts the supernet's weights back afterwards.

    All subnets are trained on the same batches of ``train_dataloader``, which are decoded once and kept. In a
    distributed run each process does the same training, so that the result does not depend on their number.

    Args:
        setting: ``True``, or ``dict(max_iters=20, optim_wrapper=None)``; without an ``optim_wrapper`` that of the
            config is taken, with a tenth of its learning rate.
        runner: the runner.
        key: place of ``setting`` in the config.
        alone: lets each process see all images.

    Raises:
        ConfigError: for a setting that is not allowed, or a config without training data or optimizer.
    """

    def __init__(self, setting: Any, runner: Any, key: str, alone: Callable[[], AbstractContextManager[Any]]) -> None:
        own = {} if setting is True else check_keys(setting, key, ('max_iters', 'optim_wrapper'))
        self.max_iters = integer(1).check(own.get('max_iters', DEFAULT_ITERS), f'{key}.max_iters')
        self.dataloader = runner.cfg.get('train_dataloader')
        self.optim_wrapper = own.get('optim_wrapper') or _with_less(runner.cfg.get('optim_wrapper'))
        for name, value in (('train_dataloader', self.dataloader),
                            ('optim_wrapper.optimizer.lr', self.optim_wrapper)):
            if not isinstance(value, Mapping):
                raise must_be(key, f'False for a config without {name}', setting)
        try:
            build_optim_wrapper(unwrapped(runner.model), copy.deepcopy(self.optim_wrapper))
        except Exception as error:  # of many kinds
            raise must_be(f'{key}.optim_wrapper', f'one that MMEngine builds for this model ({type(error).__name__}: '
                          f'{error})', dict(self.optim_wrapper)) from error
        check_dataset_files(self.dataloader.get('dataset'), 'train_dataloader.dataset')
        self._runner, self._alone = runner, alone
        self._batches: list[Any] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Train the subnet that is applied; the weights are its own while this is open."""
        model = unwrapped(self._runner.model)
        state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        gradients = {parameter: parameter.grad for parameter in model.parameters()}
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            with training_flags_kept(model), preserved_rng(), torch.random.fork_rng(devices), self._alone():
                self._train(model)
            yield
        finally:
            model.load_state_dict(state)
            for parameter, gradient in gradients.items():
                parameter.grad = gradient

    def _train(self, model: Any) -> None:
        if self._batches is None:
            batch_size = self.dataloader.get('batch_size', 1)
            self._batches = load_fixed_images(self.dataloader, self.max_iters * batch_size, 'fine-tuning',
                                              self._runner.logger.info)
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed GPUs whose states are not kept
        torch.cuda.manual_seed(0)
        for parameter in model.parameters():
            parameter.grad = None
        model.train()
        optim_wrapper = build_optim_wrapper(model, copy.deepcopy(self.optim_wrapper))
        with torch.enable_grad():
            for iteration in range(self.max_iters):
                batch = self._batches[iteration % len(self._batches)]
                model.train_step(copy.deepcopy(batch), optim_wrapper)


def _with_less(optim_wrapper: Any) -> Any:
    """The config of an optimizer wrapper with a tenth of its learning rate."""
    optimizer = dict(optim_wrapper.get('optimizer') or {}) if isinstance(optim_wrapper, Mapping) else {}
    if not isinstance(optimizer.get('lr'), Real):
        return None
    return {**optim_wrapper, 'optimizer': {**optimizer, 'lr': optimizer['lr'] * LR_FACTOR}}
