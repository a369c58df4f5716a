"""Regularisation of the largest subnet alone."""
from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from mmbignas.registry import HOOKS
from mmbignas.train.sandwich_rule import sandwich_rule
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.train.trial_pass import DROPS
from mmbignas.utils.models import unwrapped


@HOOKS.register_module()
class RegularizeLargestHook(Hook):
    """Drop-path, dropout and weight decay for the largest subnet only (BigNAS, section 3.1).

    In the passes of other subnets all drop layers let everything through. Weight decay needs less: the optimizer
    applies it once per step, to all weights, which is what the gradient of a penalty in the largest subnet's loss
    alone would do. So it is on in steps that take gradients of the largest subnet, and off in those that do not.
    """

    needs_sandwich = True  # means nothing in the training of one network

    def before_train(self, runner: Any) -> None:
        """Find the drop layers. Raises ConfigError for a training loop that trains no subnets."""
        sandwich_rule(runner, 'RegularizeLargestHook')
        model = unwrapped(runner.model)
        self._all_drops = [module for module in model.modules() if isinstance(module, DROPS)]
        self._largest_trained = False

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note how everything is set, and take the weight decay away until the largest subnet is trained."""
        self._drops = [module for module in self._all_drops if module.training]
        self._decays = [(group, group['weight_decay']) for group in runner.optim_wrapper.param_groups
                        if 'weight_decay' in group]
        if runner.optim_wrapper.should_update():  # so the last iteration did: no gradients wait for the next step
            self._largest_trained = False
        self._set_decay(self._largest_trained)

    def before_subnet_forward(self, runner: Any, subnet_pass: SubnetPass) -> None:
        """Set the drop layers for this pass."""
        for module in self._drops:
            module.train(subnet_pass.is_max)
        if subnet_pass.is_max:
            self._largest_trained = True
            self._set_decay(True)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Leave model and optimizer as they were, so that checkpoints hold the configured values."""
        for module in self._drops:
            module.train()
        self._set_decay(True)

    def _set_decay(self, on: bool) -> None:
        for group, decay in self._decays:
            group['weight_decay'] = decay if on else 0.
