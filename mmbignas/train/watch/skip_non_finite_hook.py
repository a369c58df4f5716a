"""Steps that a loss or gradient which is not finite would spoil are not taken."""
from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, Hook
from torch import Tensor

from mmbignas.registry import HOOKS
from mmbignas.supernet import BNState
from mmbignas.train.sandwich_rule import sandwich_rule
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.utils.models import unwrapped
from mmbignas.utils.rules import integer


@HOOKS.register_module()
class SkipNonFiniteHook(Hook):
    """Drops the gradients of iterations with a loss or a gradient that is not finite, and stops when it goes on so.

    One image with a broken box is enough for a loss of NaN, and one optimizer step with it makes every weight NaN. This
    hook looks before each step, in all processes together. If the loss of a pass or the summed gradient is not finite
    in any of them, none takes the step: weights, momenta and running statistics of batch normalisations are then as
    they were before. The passes to blame are reported with the settings of their subnets and their image size, and
    ``skipped_steps``, the number of such steps so far, is logged. MMDetection's ``CheckInvalidLossHook`` looks at the
    sum of the losses in one process every 50 iterations, when the weights are lost already, and ends the run.

    With gradient accumulation a step is dropped as a whole, with the gradients of all its iterations, since they have
    been added up. With a loss scaler (``AmpOptimWrapper``) only losses count: gradients that overflow are the scaler's
    to notice, and skipping such steps is how it finds its scale.

    After several dropped steps in a row it is the weights that are broken, not the data: training stops with an error.
    Until the next good step no checkpoint is written, since that could push out the last good one; only that of the end
    of training is. Schedulers go on in dropped steps.

    A check is one pass over the gradients and one wait for the device in each step.

    Args:
        max_in_a_row: number of dropped steps in a row that ends the training.

    Raises:
        ConfigError: for a number below 1; before training, for a training loop that trains no subnets.
        RuntimeError: in training, after ``max_in_a_row`` dropped steps.
    """

    needs_sandwich = True  # means nothing in the training of one network

    # After the hooks that add losses, and before the CheckpointHook.
    priority = 'LOW'

    def __init__(self, max_in_a_row: int = 10) -> None:
        self.max_in_a_row = integer(1).check(max_in_a_row, 'SkipNonFiniteHook.max_in_a_row')
        self._passes: list[SubnetPass] = []
        self._losses: list[Tensor] = []
        self._statistics: BNState | None = None
        self._in_a_row = self._skipped = 0

    def before_train(self, runner: Any) -> None:
        """Find out what there is to watch."""
        sandwich_rule(runner, 'SkipNonFiniteHook')
        self._model = unwrapped(runner.model)
        self._intervals = [(hook, hook.interval) for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        self._in_a_row, self._skipped = 0, runner.message_hub.runtime_info.get('skipped_steps', 0)
        self._forget()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the running statistics, unless gradients since they were kept wait for the next step."""
        if self._statistics is None:
            self._statistics = BNState(self._model)

    def after_subnet_backward(self, runner: Any, subnet_pass: SubnetPass, loss: Tensor) -> None:
        """Keep the loss of the pass."""
        self._passes.append(subnet_pass)
        self._losses.append(loss)

    def before_sandwich_step(self, runner: Any) -> None:
        """Drop the step if something is not finite in some process."""
        flags = self._flags(runner.optim_wrapper)
        if any(flags):
            runner.train_loop.skip_step = True
            assert self._statistics is not None
            self._statistics.restore()
            self._in_a_row += 1
            self._skipped += 1
            runner.message_hub.update_info('skipped_steps', self._skipped)
            runner.message_hub.update_scalar('train/skipped_steps', self._skipped)
            self._report(runner, flags)
        else:
            self._in_a_row = 0
        for hook, interval in self._intervals:
            hook.interval = -1 if self._in_a_row else interval
        self._forget()

    def after_train(self, runner: Any) -> None:
        """Leave the checkpoint hook as it was."""
        for hook, interval in self._intervals:
            hook.interval = interval

    def _flags(self, optim_wrapper: Any) -> list[bool]:
        """Whether the loss of each pass, and at last the gradient, is not finite in some process."""
        values = [loss.float() for loss in self._losses]
        # Everything that is trained, adapters of distillation too. Gradients are averaged already, so a bad one is bad
        # in every process.
        gradients = [parameter.grad for group in optim_wrapper.param_groups for parameter in group['params']
                     if parameter.grad is not None]
        norms = [] if hasattr(optim_wrapper, 'loss_scaler') else [
            torch.linalg.vector_norm(gradient) for gradient in gradients]
        values.append(torch.stack([norm.float() for norm in norms]).sum() if norms else torch.zeros_like(values[0]))
        bad = (~torch.stack(values).isfinite()).float()
        all_reduce(bad, 'max')
        return [bool(flag) for flag in bad.tolist()]

    def _report(self, runner: Any, flags: list[bool]) -> None:
        losses = [float(loss) for loss in self._losses]
        lines = [f'  {own.name}, iteration {own.iteration + 1}, loss here {loss}, image size '
                 f'{own.image_size or "of the batch"}: {own.subnet.to_dict()}'
                 for own, flag, loss in zip(self._passes, flags, losses) if flag]
        what = 'a loss is' if lines else 'all losses are finite, but a gradient is'
        runner.logger.warning('\n'.join([f'Iteration {runner.iter + 1}: no optimizer step, since {what} not finite '
                                         f'({self._in_a_row} in a row, {self._skipped} in this training)', *lines]))
        if self._in_a_row >= self.max_in_a_row:
            last = runner.message_hub.runtime_info.get('last_ckpt', 'none')
            raise RuntimeError(
                f'iteration {runner.iter + 1}: {what} not finite; no step could be taken {self._in_a_row} times in a '
                f'row (SkipNonFiniteHook.max_in_a_row={self.max_in_a_row}). The last checkpoint is {last}; try a lower '
                'learning rate, clip_grad, or look at the images and boxes')

    def _forget(self) -> None:
        self._passes, self._losses, self._statistics = [], [], None
