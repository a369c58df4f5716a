"""The whole process on a toy data set: draw it, train a supernet, calibrate and evaluate subnets, show detections.

    python tools/demo.py [--work-dir work_dirs/demo]

Takes a few minutes on two CPU cores. Every step is a command that is printed before it runs.
"""
import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from terminaltables import AsciiTable

from mmbignas.analysis import draw_detections
from mmbignas.supernet import Supernet, calibrate_bn

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/shapes_supnet.py'
DATA = 'data/shapes'
PROGRESS = re.compile(r'Epoch\(train\) +\[(\d+)\].*eta: (\S+).* max\.loss: (\S+).* min\.loss: (\S+)')


def run(command: list[str], log: Path) -> None:
    """Run a Python tool of the project, show its progress, and keep everything it says.

    Args:
        command: the tool and its arguments.
        log: file for the output.
    """
    print(f'\n$ python {" ".join(command)}\n  (all of its output: {log})', flush=True)
    with log.open('w') as file:
        process = subprocess.Popen([sys.executable, '-W', 'ignore', *command], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            match = PROGRESS.search(line)
            if match:
                print(f'\r  epoch {match[1]}, {match[2]} left, loss of max {match[3]}, of min {match[4]}   ',
                      end='', flush=True)
    print()
    if process.wait() != 0:
        print(log.read_text()[-2000:], file=sys.stderr)
        sys.exit(f'error: python {" ".join(command)} ended with exit code {process.returncode}')


def print_table(work_dir: Path) -> None:
    """Print accuracy without and with BN calibration, from the record that the test left.

    Args:
        work_dir: where the test ran.
    """
    record = max(work_dir.glob('*/subnets_test.jsonl'), key=os.path.getmtime)
    subnets: dict[str, dict] = {}
    for line in map(json.loads, record.read_text().splitlines()):
        row = subnets.setdefault(line['name'].removesuffix('_calib'), dict(settings=line['subnet_settings']))
        row[line['calib_bn']] = line['metrics'].get('coco/bbox_mAP', 0.)
    rows = [['subnet', 'backbone widths', 'depths', 'tower', 'mAP', 'mAP, BN calibrated']]
    for name, row in subnets.items():
        backbone, tower = row['settings']['backbone'], row['settings']['bbox_head.cls_tower']
        rows.append([name, ' '.join(map(str, backbone['out_channel'])), ' '.join(map(str, backbone['depth'])),
                     f'{tower["depth"][0]}x{tower["out_channel"][0]}', f'{row[False]:.3f}', f'{row[True]:.3f}'])
    print(AsciiTable(rows).table)
    print('One set of weights; the statistics of batch normalisation are shared by all subnets, so they are right for '
          'none of\nthem until they are calibrated for it.')


def draw(checkpoint: Path, work_dir: Path, picture: Path) -> None:
    """Draw what the largest and the smallest subnet detect.

    Args:
        checkpoint: of the supernet.
        work_dir: for the log.
        picture: PNG file to write.
    """
    with (work_dir / 'draw.log').open('w') as file, contextlib.redirect_stdout(file), \
            contextlib.redirect_stderr(file):
        cfg = Config.fromfile(str(ROOT / CONFIG))
        cfg.update(work_dir=str(work_dir / 'draw'), load_from=str(checkpoint), log_level='ERROR')
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
        supernet = Supernet(runner.model)
        calibration = list(runner.build_dataloader(cfg.train_dataloader, seed=0))
        batch = next(iter(runner.build_dataloader(cfg.val_dataloader)))
        count = 6
        rows = {}
        for name in ('max', 'min'):
            supernet.apply(getattr(supernet.space, name)())
            calibrate_bn(runner.model, calibration)
            runner.model.eval()
            with torch.no_grad():
                rows[f'{name} subnet'] = runner.model.test_step(batch)[:count]
        images = [image.permute(1, 2, 0).flip(-1).numpy() for image in batch['inputs'][:count]]
        draw_detections(rows, images, cfg.metainfo['classes'], picture)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'demo',
                        help='folder for results (default: work_dirs/demo)')
    work_dir = parser.parse_args().work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault('OMP_NUM_THREADS', str(os.cpu_count() or 1))
    begin = time.time()
    print(f'A supernet on a toy data set: about 4 minutes on two CPU cores. Results go to {work_dir}.')

    run(['tools/make_shapes.py', DATA], work_dir / 'shapes.log')
    run(['tools/train.py', CONFIG, '--work-dir', str(work_dir)], work_dir / 'train.log')
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    run(['tools/test.py', CONFIG, str(checkpoint), '--work-dir', str(work_dir)], work_dir / 'test.log')
    picture = work_dir / 'detections.png'
    draw(checkpoint, work_dir, picture)
    print_table(work_dir)
    print(f'\n{time.time() - begin:.0f} s. The supernet: {checkpoint}\nDetections of the largest and the smallest '
          f'subnet: {picture}')


if __name__ == '__main__':
    main()
