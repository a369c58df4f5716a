"""What makes a sandwich iteration need less memory, and how much less.

    python benchmarks/train_memory.py [--image-size 512 896]

The peak of one optimizer step of RetinaNet-R18, as ``train_step.py`` measures it: weights, momenta, gradients,
activations and what the operators need meanwhile, in bytes that torch's allocator has given out. Two images of the
given size with four boxes each; with ``accumulate`` one after the other. One step is made before, so that momenta are
there. Beside it, how long the step took, once and without a warm-up of that size, so it is a hint only.
"""
from __future__ import annotations

import argparse
import copy
import tempfile
import time
from typing import Any

import common
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from train_step import allocated, peak_of

from mmbignas.supernet import Supernet, subnet_config

BATCH_SIZE = 2
BAR = 0.8  # of the largest saving, relative to the sandwich as it is


class PeakHook(Hook):
    """Records the memory of the second optimizer step.

    Args:
        iterations: in a step.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations, self.peak, self.seconds = iterations, 0, 0.

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin with the first iteration of the step."""
        if batch_idx == self.iterations:
            self._base, self._begin = allocated(runner), time.perf_counter()
            self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profiler.__enter__()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """End with the last one."""
        if batch_idx == 2 * self.iterations - 1:
            self._profiler.__exit__(None, None, None)
            self.seconds = time.perf_counter() - self._begin
            self.peak = self._base + peak_of(self._profiler)


def train(model: nn.Module, size: tuple[int, int], train_cfg: dict[str, Any], hooks: list[Any], accumulate: int = 1,
          **optim_wrapper: Any) -> PeakHook:
    """Make two optimizer steps on synthetic images under a Runner, and measure the second."""
    cfg = common.Config.fromfile(common.DETECTOR_CONFIG)
    batch = common.synthetic_batch(*size, BATCH_SIZE)
    images = [dict(inputs=image, data_samples=sample) for image, sample in zip(*batch.values())] * 2
    hook = PeakHook(accumulate)
    with tempfile.TemporaryDirectory() as folder:
        Runner(
            model, work_dir=folder, train_dataloader=DataLoader(images, BATCH_SIZE // accumulate,
                                                                collate_fn=pseudo_collate),
            train_cfg=dict(train_cfg, max_epochs=1), custom_hooks=[*hooks, hook],
            optim_wrapper=dict(cfg.optim_wrapper, accumulative_counts=accumulate, **optim_wrapper),
            default_hooks=dict(checkpoint=None), default_scope='mmdet', log_level='ERROR', randomness=dict(seed=0),
            experiment_name=common.Path(folder).name).train()
    return hook


def main() -> None:
    """Measure the largest subnet alone, the sandwich, and the sandwich with each option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--image-size', type=int, nargs=2, default=(512, 896), metavar=('HEIGHT', 'WIDTH'))
    size = tuple(parser.parse_args().image_size)
    cfg = common.Config.fromfile(common.DETECTOR_CONFIG)
    train_cfg = {key: cfg.train_cfg[key] for key in ('type', 'sample_subnet_num', 'sample_strategy')}
    hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'mmbignas.BNCalibrationHook']

    def supernet(**backbone: Any) -> nn.Module:
        model_cfg = copy.deepcopy(cfg.model)
        model_cfg.backbone.update(backbone)
        return common.build_detector(model_cfg)

    model = supernet()
    plain = common.build_detector(subnet_config(cfg.model, model, Supernet(model).space.max()))
    runs: dict[str, tuple[nn.Module, dict, list, dict]] = {
        'max alone': (plain, dict(type='EpochBasedTrainLoop'), [], {}),
        'sandwich': (model, train_cfg, hooks, {}),
        'with_cp': (supernet(with_cp=True), train_cfg, hooks, {}),
        'accumulate': (supernet(), train_cfg, hooks, dict(accumulate=2)),
        'with_cp, accumulate': (supernet(with_cp=True), train_cfg, hooks, dict(accumulate=2)),
        'channels last': (supernet(), train_cfg, [*hooks, dict(type='mmbignas.ChannelsLastHook')], {}),
        'bfloat16': (supernet(), train_cfg, hooks, dict(type='mmbignas.BFloat16OptimWrapper')),
    }
    results = {}
    for name, (net, loop, own_hooks, options) in runs.items():
        results[name] = hook = train(net, size, loop, own_hooks, **options)
        print(f'{name:20}  {hook.peak / 2**20:6.0f} MiB  {hook.seconds:6.1f} s', flush=True)
    base = results['sandwich'].peak
    least = results['with_cp, accumulate'].peak / base
    common.report('train_memory', [common.figure('with_cp and accumulation / sandwich', least, BAR)],
                  image_size=list(size), peak_bytes={name: hook.peak for name, hook in results.items()},
                  seconds={name: round(hook.seconds, 2) for name, hook in results.items()})


if __name__ == '__main__':
    main()
