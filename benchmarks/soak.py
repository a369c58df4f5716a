"""Whether a long run grows: memory, open files and what it logs, in training and in a sample of accuracies.

    python benchmarks/soak.py [--iterations 2000] [--subnets 500]

The supernet of ``configs/digits_supnet.py`` (learned kernel transforms, two image sizes, distillation; a checkpoint an
epoch, of which two are kept) is trained on batches of eight, four subnets an iteration. Then subnets of it are
calibrated and evaluated by ``SampleAccuracyLoop``, on few images. The first third of each is a warm-up, in which
everything has happened once. Growth of memory (resident set) and open files is that from the end of the warm-up to the
end. A log grows by nature, so its growth is that of the bytes written in the last third over those in the second.
"""
from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

BAR = 0.02
TRAIN_BATCH, IMAGES = 8, 32
LOGS = ('*.log', '*.json', '*.jsonl', '*.csv')


class SoakHook(Hook):
    """Notes what a run holds after each third.

    Args:
        third: how many iterations or evaluated subnets it has; of iterations, those of whole epochs, since what is
            logged goes by epochs.
    """

    priority = 'LOWEST'

    def __init__(self, third: int) -> None:
        self.moments = [third, 2 * third, 3 * third]
        self.done = 0
        self.notes: list[dict[str, int]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count an iteration."""
        self._count(runner)

    def after_subnet_eval(self, runner: Runner, subnet_eval: Any) -> None:
        """Count an evaluated subnet."""
        self._count(runner)

    def _count(self, runner: Runner) -> None:
        self.done += 1
        if self.done in self.moments:
            gc.collect()
            folder = Path(runner.work_dir)
            files = {path for pattern in LOGS for path in folder.rglob(pattern)}
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            self.notes.append(dict(memory=pages * os.sysconf('SC_PAGE_SIZE'), files=len(os.listdir('/proc/self/fd')),
                                   log=sum(path.stat().st_size for path in files)))
            print(f'{self.done} of {self.moments[-1]}: {self.notes[-1]}', file=sys.stderr, flush=True)

    def growth(self) -> dict[str, float]:
        """By which part each grew."""
        start, middle, end = self.notes
        return dict(memory=end['memory'] / start['memory'] - 1, files=end['files'] / start['files'] - 1,
                    log=(end['log'] - middle['log']) / (middle['log'] - start['log']) - 1)


def config(name: str, data: Path, folder: Path) -> Config:
    """A config of the digits with the data in a folder, and its results in another."""
    cfg = Config.fromfile(str(common.ROOT / 'configs' / name))
    for stage in ('train', 'val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.data_root = f'{data}/'
    cfg.work_dir, cfg.experiment_name = str(folder), folder.name
    cfg.default_hooks.checkpoint.interval = 1
    return cfg


def run(cfg: Config, hook: SoakHook, stage: str) -> SoakHook:
    """Train or test with a hook, and without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        runner = Runner.from_cfg(cfg)
        runner.register_hook(hook)
        getattr(runner, stage)()
    return hook


def main() -> None:
    """Run both, one after the other, in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--iterations', type=int, default=2000, help='of the training, at least (default: 2000)')
    parser.add_argument('--subnets', type=int, default=500, help='that are evaluated, at least (default: 500)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / 'data'
        subprocess.run([sys.executable, str(common.ROOT / 'tools' / 'make_digits.py'), str(data)], check=True,
                       stdout=subprocess.DEVNULL)
        cfg = config('digits_supnet.py', data, folder / 'train')
        images = len(list((data / 'train').rglob('*.png')))
        cfg.train_dataloader.batch_size = TRAIN_BATCH
        epoch = -(-images // TRAIN_BATCH)
        epochs = 3 * -(-args.iterations // (3 * epoch))
        cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs + 1)
        trained = run(cfg, SoakHook(epochs // 3 * epoch), 'train')
        cfg = config('digits_sample_accuracy.py', data, folder / 'sample')
        cfg.load_from = str(folder / 'train' / f'epoch_{epochs}.pth')
        cfg.train_cfg = cfg.train_dataloader = cfg.optim_wrapper = cfg.param_scheduler = None
        cfg.custom_hooks = [dict(type='mmbignas.BNCalibrationHook', num_images=IMAGES, dataloader=dict(
            cfg.test_dataloader, batch_size=IMAGES))]
        third = -(-args.subnets // 3)
        cfg.test_cfg.update(subnet_count=3 * third, val_images=IMAGES)
        sampled = run(cfg, SoakHook(third), 'test')
    figures = [common.figure(f'{what} in {stage}', growth, BAR, 'growth')
               for stage, hook in (('training', trained), ('evaluation', sampled))
               for what, growth in hook.growth().items()]
    figures.sort(key=lambda own: -own['value'])  # the worst is the benchmark's value
    common.report('soak', figures, iterations=trained.done, subnets=sampled.done, training=trained.notes,
                  evaluation=sampled.notes)


if __name__ == '__main__':
    main()
