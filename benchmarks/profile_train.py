"""Where the time of a training iteration goes, and how much of it is the supernet's.

    python benchmarks/profile_train.py

Two detectors under MMEngine's Runner with all that their configs set up for training (the sandwich loop, the optimizer,
in-place distillation and the other hooks, but for checkpoints and BN calibration): the demo's
(``configs/shapes_supnet.py``, eight images of 128x128) and RetinaNet-R18 (``configs/retinanet_r18_supnet.py``, two
images of 256x448). torch's profiler records single iterations; what is printed are medians over them, in milliseconds
and as a share of the iteration. Times are those of the clock, so on a busy machine the shares say more. The profiler
makes small operations slower, so shares of many small ones are upper bounds; compare two versions of the code without
it.

*Ours* is what an ordinary network trained by MMEngine's own loop does not do:

- *slices, forward*: cutting the weights and statistics of a subnet out of the supernet's;
- *slices, backward*: filling the gradients of what was cut off with zeros (a few slices are the detector's own);
- *adding gradients*: to those of the passes before. Of four networks trained side by side it would be as much, in the
  size of each network; here it is in that of the slices or, where these are filled up, in the supernet's;
- *applying subnets*, *recorded outputs* and *distillation losses* (their forward part) say what they are; *other hooks*
  are all other calls of hooks, MMEngine's too; *averaging* is nothing in one process.
"""
from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import common
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from mmbignas.distill import DistillHook, OutputRecorder
from mmbignas.ops import DynamicBatchNorm2d, dynamic_conv, dynamic_linear
from mmbignas.supernet import Supernet
from mmbignas.train import sandwich_loop as sandwich_train_loop

CASES = {'demo': ('shapes_supnet.py', (128, 128), 8, 12), 'R18': ('retinanet_r18_supnet.py', (256, 448), 2, 3)}
WARM_UP_ITERS = 2
NODE = 'autograd::engine::evaluate_function: '
SLICES_BACKWARD = [NODE + name for name in ('ConstantPadNdBackward0', 'SliceBackward0')]
ACCUMULATE = [NODE + 'torch::autograd::AccumulateGrad']
SHARED = ('data preprocessor', 'forward and losses', 'backward', 'optimizer')
OURS = ('slices, forward', 'slices, backward', 'adding gradients', 'applying subnets', 'recorded outputs',
        'distillation losses', 'averaging', 'other hooks')


def labelled(owner: Any, name: str, label: str) -> None:
    """Have the profiler record the calls of a function or method under a label."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(label):
            return original(*args, **kwargs)
    setattr(owner, name, call)


def label_classes() -> None:
    """Label what is ours, for all models."""
    labelled(dynamic_conv, 'crop', 'slices, forward')
    labelled(dynamic_linear, 'crop', 'slices, forward')
    labelled(DynamicBatchNorm2d, '_statistics', 'slices, forward')
    labelled(DynamicBatchNorm2d, '_affine', 'slices, forward')
    labelled(Supernet, 'apply', 'applying subnets')
    labelled(DistillHook, 'after_subnet_forward', 'distillation losses')
    labelled(sandwich_train_loop, 'average_gradients', 'averaging')
    make_hook = OutputRecorder._hook

    def labelled_hook(self: OutputRecorder, *args: Any) -> Callable[..., None]:
        record = make_hook(self, *args)

        def call(*values: Any) -> None:
            with record_function('recorded outputs'):
                record(*values)
        return call
    OutputRecorder._hook = labelled_hook  # type: ignore[method-assign]


class ProfileHook(Hook):
    """Profiles single iterations after some that warm up.

    Attributes:
        times: for each profiled iteration, part -> milliseconds.
    """

    def __init__(self) -> None:
        self.times: list[dict[str, float]] = []

    def before_train(self, runner: Runner) -> None:
        """Label the parts of this run, and put the profiler around its iterations."""
        labelled(runner.model.data_preprocessor, 'forward', 'data preprocessor')
        labelled(runner.model, '_run_forward', 'forward and losses')
        labelled(runner.optim_wrapper, 'backward', 'backward')
        labelled(runner.optim_wrapper, 'step', 'optimizer')
        labelled(runner.optim_wrapper, 'zero_grad', 'optimizer')
        labelled(runner, 'call_hook', 'all hooks')
        run_iter = runner.train_loop.run_iter

        def profiled(index: int, data_batch: Any) -> None:
            if index < WARM_UP_ITERS:
                run_iter(index, data_batch)
                return
            with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function('iteration'):
                run_iter(index, data_batch)
            self.times.append(parts_of(profiler))
        runner.train_loop.run_iter = profiled


def parts_of(profiler: profile) -> dict[str, float]:
    """Milliseconds of each part of a profiled iteration."""
    totals = {event.key: event.cpu_time_total / 1e3 for event in profiler.key_averages()}
    parts = {part: totals.get(part, 0.) for part in ('iteration', *SHARED, *OURS)}
    parts['slices, backward'] = sum(totals.get(key, 0.) for key in SLICES_BACKWARD)
    parts['adding gradients'] = sum(totals.get(key, 0.) for key in ACCUMULATE)
    parts['other hooks'] = totals.get('all hooks', 0.) - parts['distillation losses']
    # What is ours is not the others'.
    parts['forward and losses'] -= parts['slices, forward'] + parts['recorded outputs']
    parts['backward'] -= parts['slices, backward'] + parts['adding gradients']
    return parts


def profile_iterations(config: str, size: tuple[int, int], batch_size: int, iterations: int) -> dict[str, float]:
    """Train on synthetic images and profile.

    Args:
        config: file in ``configs``.
        size: height and width of the images in pixels.
        batch_size: number of images.
        iterations: how many are profiled.

    Returns:
        dict: part -> median milliseconds; ``iteration`` is all of it.
    """
    cfg = common.Config.fromfile(common.ROOT / 'configs' / config)
    batch = common.synthetic_batch(*size, batch_size)
    for sample in batch['data_samples']:
        sample.gt_instances.labels %= cfg.model.bbox_head.num_classes
    images = [dict(inputs=image, data_samples=sample) for image, sample in zip(*batch.values())]
    loader = DataLoader(images * (WARM_UP_ITERS + iterations), batch_size, collate_fn=pseudo_collate)
    train_cfg = {key: cfg.train_cfg[key] for key in ('type', 'sample_subnet_num', 'sample_strategy')}
    hook = ProfileHook()
    with tempfile.TemporaryDirectory() as folder:
        Runner(
            common.build_detector(cfg.model), work_dir=folder, train_dataloader=loader,
            train_cfg=dict(train_cfg, max_epochs=1), optim_wrapper=cfg.optim_wrapper,
            param_scheduler=cfg.param_scheduler,
            custom_hooks=[*(own for own in cfg.custom_hooks if own['type'] != 'mmbignas.BNCalibrationHook'), hook],
            default_hooks=dict(cfg.default_hooks, checkpoint=None), default_scope='mmdet', log_level='ERROR',
            randomness=dict(seed=0), experiment_name=common.Path(folder).name).train()
    return {part: statistics.median(own[part] for own in hook.times) for part in hook.times[0]}


def main() -> None:
    """Profile both detectors."""
    label_classes()
    for name, case in CASES.items():
        parts = profile_iterations(*case)
        print(f'\n{name}: an iteration of {parts["iteration"]:.1f} ms')
        for title, keys in (('as in any training', SHARED), ('ours', OURS)):
            print(f'  {title}')
            for key in sorted(keys, key=lambda key: -parts[key]):
                print(f'    {key:20} {parts[key]:8.2f} ms  {parts[key] / parts["iteration"]:6.2%}', flush=True)
    print(', '.join(f'{key} {value}' for key, value in common.machine().items()))


if __name__ == '__main__':
    main()
