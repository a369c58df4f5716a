"""Imported by the configs of the runs in test_finetuning_runs.py: a hook that ends a process in mid-run."""
import os
import signal

from mmengine.hooks import Hook

from mmbignas.registry import HOOKS


@HOOKS.register_module()
class KillingHook(Hook):
    """Ends the process in one iteration, as ``kill -9`` would.

    Args:
        iteration: which one; ``None`` for none.
    """

    def __init__(self, iteration=None):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)
