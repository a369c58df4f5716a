"""Imported by the configs of the runs in runs.py: a hook that writes down what a process trains; mixed precision."""
import json
import os
import signal
from contextlib import contextmanager

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from mmbignas.registry import HOOKS


@HOOKS.register_module()
class RecordingHook(Hook):
    """Appends each pass to ``<work_dir>/passes<rank>.jsonl`` and saves the final weights as ``rank<rank>.pth``.

    Args:
        die_at: iteration in which the process kills itself, as ``kill -9`` would.
        die_by: the signal's name.
    """

    def __init__(self, die_at=None, die_by='SIGKILL'):
        self.die_at, self.die_by = die_at, signal.Signals[die_by]

    def before_subnet_forward(self, runner, subnet_pass):
        if subnet_pass.iteration == self.die_at and subnet_pass.index == 2:
            os.kill(os.getpid(), self.die_by)
        line = [subnet_pass.iteration, subnet_pass.name, subnet_pass.subnet.to_dict()]
        with open(f'{runner.work_dir}/passes{get_rank()}.jsonl', 'a') as file:
            file.write(json.dumps(line) + '\n')

    def after_train(self, runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        torch.save(model.state_dict(), f'{runner.work_dir}/rank{get_rank()}.pth')


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Mixed precision on the CPU, where MMEngine's ``AmpOptimWrapper`` does not run; checkpoints like that one's."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield

    def state_dict(self):
        return dict(super().state_dict(), loss_scaler=dict(scale=1.))
