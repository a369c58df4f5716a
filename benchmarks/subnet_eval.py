"""What a subnet costs in a sample of accuracies more than the evaluation of the exported network on the same images.

    make demo                            # trains the supernet
    python benchmarks/subnet_eval.py [--images 1000]

Ours is everything that the loop does for a subnet: apply the settings, calibrate with 256 images, evaluate, write a
line to the disk, report progress. The peer is MMEngine's ``TestLoop`` with the exported network, whose statistics are
there already. Both read the same drawn images of 128x128 (by default 1,000, a fifth of COCO's validation set) with the
same dataloader, each built once. Each ratio is the median over the rounds of the ratio within a round.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
from mmengine.config import Config
from mmengine.runner import Runner

from mmbignas.evaluation.ledger import Ledger
from mmbignas.evaluation.results import Progress
from mmbignas.export.plain_config import plain_run_config
from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict

BAR = 1.25
ROUNDS = 4
CALIBRATION_IMAGES = 256


def config(folder: Path, images: int) -> Config:
    """The demo's config, with more validation images."""
    subprocess.run([sys.executable, str(common.ROOT / 'tools' / 'make_shapes.py'), str(folder / 'data'), '--train',
                    str(CALIBRATION_IMAGES), '--val', str(images)], check=True, stdout=subprocess.DEVNULL)
    cfg = Config.fromfile(str(common.ROOT / 'configs' / 'shapes_sample_accuracy.py'))
    for stage in ('train', 'val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.data_root = f'{folder}/data/'
    cfg.test_evaluator.ann_file = f'{folder}/data/annotations/val.json'
    cfg.custom_hooks[0].num_images = CALIBRATION_IMAGES
    cfg.work_dir, cfg.log_level = str(folder / 'runs'), 'ERROR'
    return cfg


def quiet(function: Callable[[], Any]) -> float:
    """Seconds of a call, without what pycocotools prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return common.seconds(function)


def main() -> None:
    """Measure the largest, the smallest and a random subnet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=1000, help='validation images (default: 1000)')
    parser.add_argument('--checkpoint', default=str(common.ROOT / 'work_dirs' / 'demo' / 'epoch_16.pth'),
                        help="of the demo's supernet (default: where make demo leaves it)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg = config(folder, args.images)
        cfg.load_from = args.checkpoint
        runner = Runner.from_cfg(cfg)
        loop = runner.test_loop
        runner.load_or_resume()
        supernet = Supernet(runner.model)
        runner.model.eval()
        ledger = Ledger(folder / 'ledger.jsonl', loop.survey.identity())
        progress = Progress(10**6, 0, lambda message: None)
        figures, medians = [], {}
        space = supernet.space
        for name, subnet in dict(max=space.max(), min=space.min(), random=space.sample(random.Random(0))).items():
            supernet.apply(subnet)
            model_cfg = subnet_config(cfg.model, runner.model, subnet)
            plain_cfg = plain_run_config(cfg, model_cfg)
            plain_cfg.work_dir, plain_cfg.experiment_name = cfg.work_dir, name
            plain = Runner.from_cfg(plain_cfg)
            plain.model.load_state_dict(subnet_state_dict(runner.model, plain.model))
            plain.model.eval()
            plain_loop = plain.test_loop
            plain.call_hook('before_run')  # opens the log

            def ours(subnet: Any) -> None:
                line = loop.survey.score(subnet)
                ledger.append(line)
                progress.update(1, line, ledger.lines().values, loop.survey.metric1)

            times = common.interleave(dict(ours=partial(quiet, partial(ours, subnet)),
                                           plain=partial(quiet, plain_loop.run)), ROUNDS)
            ratio = common.median_ratio(times['ours'], times['plain'])
            figures.append(common.figure(f'subnet {name}', ratio, BAR))
            medians[name] = {case: round(common.statistics.median(values), 3) for case, values in times.items()}
            print(f'{name:6}  ours {medians[name]["ours"]:.2f} s  plain {medians[name]["plain"]:.2f} s  ratio '
                  f'{ratio:.3f}', flush=True)
    common.report('subnet_eval', figures, seconds=medians, images=args.images)


if __name__ == '__main__':
    main()
