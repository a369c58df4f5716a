"""What the sandwich loop costs beside the training itself, in time and memory.

    python benchmarks/train_step.py

RetinaNet-R18 under MMEngine's Runner, with the optimizer, the schedulers and the hooks of
``configs/retinanet_r18_supnet.py``, in-place distillation and the regularisation of the largest subnet among them;
without the checkpoint hook, and without BN calibration, which belongs to evaluation. Two images with four boxes each,
in memory. The peer is MMEngine's own ``EpochBasedTrainLoop``, with MMEngine's hooks, on the largest subnet as a plain
network.

*Time*, on images of 256x448, where it is hardest to be small: the share of the loop's ``run_iter`` that is spent
outside the detector's forward pass with its losses, the backward pass, and the optimizer's ``step`` and ``zero_grad``.
Everything else counts: drawing and applying subnets, all hooks (MMEngine's too, with a log line every ten iterations)
and with them the distillation loss, the sum of the losses, the data preprocessor. Waiting for the dataloader does not;
it comes before ``run_iter``. The figure is the share of all iterations together, not a median, so that it has what
happens in some iterations only.

*Memory*, on images of 800x1344, as the config trains them (eight at a time): the peak of an iteration, in bytes that
torch's allocator has given out: weights, buffers, momentum, gradients, activations and what the operators need
meanwhile. torch's profiler reports every allocation, so unlike the resident set the figure does not depend on malloc
or on what the process did before. It is printed for 256x448 too. There the sandwich needs more than the largest subnet
alone, since the gradients of all weights (206 MiB) live through the later passes, and a subnet's activations with its
cropped weights are hardly smaller than the largest one's; with larger images or batches activations decide.
"""
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import common
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from mmbignas.supernet import Supernet, subnet_config

SIZES, BATCH_SIZE = {'256x448': (256, 448), '800x1344': (800, 1344)}, 2
WARM_UP_ITERS, TIMED_ITERS = 2, 10
TIME_BAR, MEMORY_BAR = 0.01, 1.05
TRAINING = ('forward', 'backward', 'optimizer')


class MeasureHook(Hook):
    """Times the parts of the iterations, and records the memory of one more of each size after them.

    Attributes:
        seconds: part -> seconds in all timed iterations; ``preprocessor`` and ``hooks`` are parts of the rest.
        peaks: size of the images -> greatest number of bytes allocated at a time.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(('iteration', *TRAINING, 'preprocessor', 'hooks'), 0.)
        self.peaks: dict[str, int] = {}
        self._timing = False

    def before_train(self, runner: Runner) -> None:
        """Wrap the methods to be timed."""
        self._wrap('forward', runner.model, 'forward')
        self._wrap('preprocessor', runner.model.data_preprocessor, 'forward')
        self._wrap('backward', runner.optim_wrapper, 'backward')
        self._wrap('optimizer', runner.optim_wrapper, 'step')
        self._wrap('optimizer', runner.optim_wrapper, 'zero_grad')
        self._wrap('hooks', runner, 'call_hook')
        self._wrap('iteration', runner.train_loop, 'run_iter')
        run_iter = runner.train_loop.run_iter

        def measured(index: int, data_batch: Any) -> None:
            self._timing = WARM_UP_ITERS <= index < WARM_UP_ITERS + TIMED_ITERS
            if index < WARM_UP_ITERS + TIMED_ITERS:
                run_iter(index, data_batch)
                return
            base = allocated(runner)
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                run_iter(index, data_batch)
            self.peaks[list(SIZES)[index - WARM_UP_ITERS - TIMED_ITERS]] = base + peak_of(profiler)
        runner.train_loop.run_iter = measured

    def _wrap(self, part: str, owner: Any, method: str) -> None:
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = common.time.process_time()
            result = original(*args, **kwargs)
            if self._timing:
                self.seconds[part] += common.time.process_time() - begin
            return result
        setattr(owner, method, timed)

    @property
    def outside(self) -> float:
        """Share of the iterations outside the training itself."""
        return 1 - sum(self.seconds[part] for part in TRAINING) / self.seconds['iteration']


def allocated(runner: Runner) -> int:
    """Bytes of weights, buffers and optimizer states between two iterations, when there are no gradients."""
    tensors = [*runner.model.parameters(), *runner.model.buffers()]
    assert all(parameter.grad is None for parameter in runner.model.parameters())
    tensors += [state['momentum_buffer'] for state in runner.optim_wrapper.optimizer.state.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_of(profiler: profile) -> int:
    """The greatest sum of the profiled allocations and releases up to some moment, in bytes."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def train(model: nn.Module, train_cfg: dict[str, Any], custom_hooks: Sequence[dict]) -> MeasureHook:
    """Train on synthetic images under a Runner and measure."""
    cfg = common.Config.fromfile(common.DETECTOR_CONFIG)
    images = []
    for index, (height, width) in enumerate(SIZES.values()):
        batch = common.synthetic_batch(height, width, BATCH_SIZE)
        pairs = [dict(inputs=image, data_samples=sample) for image, sample in zip(*batch.values())]
        images += pairs * (1 if index else WARM_UP_ITERS + TIMED_ITERS + 1)
    loader = DataLoader(images, BATCH_SIZE, collate_fn=pseudo_collate)
    hook = MeasureHook()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model, work_dir=folder, train_dataloader=loader, train_cfg=dict(train_cfg, max_epochs=1),
            optim_wrapper=cfg.optim_wrapper, param_scheduler=cfg.param_scheduler, custom_hooks=[*custom_hooks, hook],
            default_hooks=dict(cfg.default_hooks, checkpoint=None, logger=dict(type='LoggerHook', interval=10)),
            log_processor=cfg.log_processor, default_scope='mmdet', log_level='ERROR', randomness=dict(seed=0),
            experiment_name=common.Path(folder).name)
        runner.train()
    return hook


def main() -> None:
    """Train the supernet and the largest subnet alone."""
    cfg = common.Config.fromfile(common.DETECTOR_CONFIG)
    model = common.build_detector()
    plain = common.build_detector(subnet_config(cfg.model, model, Supernet(model).space.max()))
    train_cfg = {key: cfg.train_cfg[key] for key in ('type', 'sample_subnet_num', 'sample_strategy')}
    custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'mmbignas.BNCalibrationHook']
    hooks = {'max alone': train(plain, dict(type='EpochBasedTrainLoop'), []),
             'sandwich': train(model, train_cfg, custom_hooks)}
    print(f'\n{"":9}  iteration  forward  backward  optimizer  outside: all  hooks  preprocessor')
    for name, hook in hooks.items():
        parts = {part: value / TIMED_ITERS * 1e3 for part, value in hook.seconds.items()}
        print(f'{name:9}  {parts["iteration"]:6.0f} ms  {parts["forward"]:4.0f} ms  {parts["backward"]:5.0f} ms  '
              f'{parts["optimizer"]:6.0f} ms  {hook.outside * parts["iteration"]:9.2f} ms  {parts["hooks"]:5.2f}  '
              f'{parts["preprocessor"]:12.2f}')
    peer, ours = hooks.values()
    for size in SIZES:
        print(f'{size:9}  peak memory of max alone {peer.peaks[size] / 2**20:.0f} MiB, of the sandwich '
              f'{ours.peaks[size] / 2**20:.0f} MiB: {ours.peaks[size] / peer.peaks[size]:.3f}')
    size = list(SIZES)[-1]
    figures = [common.figure('share of an iteration outside forward, backward, optimizer', ours.outside, TIME_BAR),
               common.figure(f'peak memory at {size}, sandwich / max alone', ours.peaks[size] / peer.peaks[size],
                             MEMORY_BAR)]
    common.report('train_step', figures, peer_outside=round(peer.outside, 4),
                  seconds={name: {part: round(value, 4) for part, value in hook.seconds.items()}
                           for name, hook in hooks.items()},
                  peak_bytes={name: hook.peaks for name, hook in hooks.items()})


if __name__ == '__main__':
    main()
