"""The whole process on a toy data set: make it, train a supernet, see what its subnets cost and are good for.

    python tools/demo.py [--full | --cls | --elastic] [--work-dir work_dirs/demo]

A detector on drawn shapes, or with --cls a classifier on handwritten digits. With --elastic, a stock detector of
MMDetection is trained first, and then made a family. Takes a few minutes on two CPU cores; with --full a sample of
subnets is also evaluated, and one is exported, fine-tuned and written as ONNX and .pt2.
Every step is a command that is printed before it runs.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from terminaltables import AsciiTable

from mmbignas.utils.commands import command as shell_command

ROOT = Path(__file__).resolve().parents[1]
DATA = 'data/shapes'
EPOCHS = 12  # of the elastic demo
PROGRESS = re.compile(r'Epoch\(train\) +\[(\d+)\].*eta: (\S+).*? loss: (\S+)')


def run(command: list[str], log: Path, show: str = '', **environment: str) -> None:
    """Run a Python tool of the project, show its progress, and keep everything it says.

    Args:
        command: the tool and its arguments.
        log: file for the output.
        show: a pattern of the lines that are shown.
        environment: variables to set.
    """
    print(f'\n$ {shell_command("python", *command, **environment)}\n  (all of its output: {log})', flush=True)
    shown, progress = [], False
    with log.open('w') as file:
        process = subprocess.Popen([sys.executable, '-W', 'ignore', *command], cwd=ROOT, text=True,
                                   env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if show and re.search(show, line):
                shown.append(line.rstrip())
            match = PROGRESS.search(line)
            if match:
                progress = True
                print(f'\r  epoch {match[1]}, {match[2]} left, loss {match[3]}   ', end='', flush=True)
    print('\n' * progress + '\n'.join(f'  {line}' for line in shown), end='\n' * bool(shown))
    if process.wait() != 0:
        print(log.read_text()[-2000:], file=sys.stderr)
        sys.exit(f'error: {shell_command("python", *command)} ended with exit code {process.returncode}')


def print_table(work_dir: Path, metric: str, *columns: str) -> None:
    """Print what subnets cost and how good they are, from the record that the test left.

    Args:
        work_dir: where the test ran.
        metric: name of the metric that is shown.
        columns: what else is shown: ``image size``, or the path of a searchable module with one stage, for its layers.
    """
    record = json.loads(max(work_dir.glob('*/evaluation.json'), key=os.path.getmtime).read_text())
    short = metric.replace('_', '/').split('/')[-1]
    rows = [['subnet', 'backbone widths', 'depths', *(column.split('.')[-1] for column in columns), 'MMACs',
             'parameters', 'ms', short, f'{short}, BN calibrated']]
    for subnet in record['subnets']:
        settings, backbone = subnet['subnet_settings'], subnet['subnet_settings']['backbone']
        more = ['{}x{}'.format(*subnet['image_size']) if column == 'image size' else
                f'{settings[column]["depth"][0]}x{settings[column]["out_channel"][0]}' for column in columns]
        accuracies = [(subnet[name] or {}).get(metric, 0.) for name in ('metrics', 'metrics_calib')]
        rows.append([
            subnet['name'], ' '.join(map(str, backbone['out_channel'])), ' '.join(map(str, backbone['depth'])), *more,
            f'{subnet["macs"] / 1e6:.1f}', f'{subnet["params"]:,}', f'{subnet["latency"]["median"]:.1f}',
            *(f'{accuracy:.3f}' for accuracy in accuracies)])
    print(AsciiTable(rows).table)
    print('One set of weights; the statistics of batch normalisation are shared by all subnets, so they are right for '
          'none of\nthem until they are calibrated for it.')


def sample(config: str, checkpoint: Path, work_dir: Path) -> Path:
    """Evaluate a sample of subnets.

    Args:
        config: of the sample.
        checkpoint: of the supernet.
        work_dir: folder for results.

    Returns:
        Path: a page to choose a subnet from.
    """
    folder = work_dir / f'sample_{time.strftime("%Y%m%d_%H%M%S")}'  # figures of another supernet would be refused
    run(['tools/test.py', config, str(checkpoint), '--work-dir', str(folder)],
        work_dir / 'sample.log', show=r'^([|+]|baseline|large|best:|Pareto)')
    return folder / 'sample_accuracy' / 'subnets.html'


def ship(checkpoint: Path, work_dir: Path) -> Path:
    """Take the smallest subnet all the way to files that somebody ships.

    Args:
        checkpoint: of the supernet.
        work_dir: folder for results.

    Returns:
        Path: the folder with these files.
    """
    tuned, folder = work_dir / 'finetune', work_dir / f'min_{time.strftime("%Y%m%d_%H%M%S")}'
    run(['tools/export_subnet.py', 'configs/shapes_evaluate_subnet.py', str(checkpoint), '--subnet', 'min', '--out',
         str(folder)], work_dir / 'export.log', show='^(min|BN stat|outputs|in )')
    run(['tools/train.py', 'configs/shapes_finetune_subnet.py', '--work-dir', str(tuned)], work_dir / 'finetune.log',
        show=r'^  coco/bbox_mAP: ', SUPERNET_CHECKPOINT=str(checkpoint))
    for name in ('min.onnx', 'min.pt2'):
        boxes = ['--boxes'] if name.endswith('.onnx') else []
        run(['tools/export_onnx.py', str(folder / 'config.py'), str(folder / 'checkpoint.pth'), '--out',
             str(folder / name), *boxes], work_dir / f'{name}.log', show='^(/|outputs|raw|boxes)')
    return folder


def train(config: str, test_config: str, work_dir: Path) -> Path:
    """Train a supernet and evaluate three of its subnets.

    Args:
        config: of the training.
        test_config: of the evaluation.
        work_dir: folder for results.

    Returns:
        Path: the supernet's checkpoint.
    """
    run(['tools/train.py', config, '--work-dir', str(work_dir)], work_dir / 'train.log')
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    run(['tools/test.py', test_config, str(checkpoint), '--work-dir', str(work_dir)], work_dir / 'test.log')
    return checkpoint


def detect(work_dir: Path, full: bool) -> str:
    """The demo of a detector; returns what came out of it."""
    run(['tools/make_shapes.py', DATA], work_dir / 'shapes.log')
    checkpoint = train('configs/shapes_supnet.py', 'configs/shapes_evaluate_subnet.py', work_dir)
    print_table(work_dir, 'coco/bbox_mAP', 'bbox_head.cls_tower')
    picture = work_dir / 'detections.png'
    images = [f'{DATA}/val/{number:05d}.png' for number in (2, 5)]
    run(['tools/draw_subnets.py', 'configs/shapes_supnet.py', str(checkpoint), '--images', *images, '--subnet', 'max',
         'middle', 'min', '--out', str(picture), '--overwrite'], work_dir / 'draw.log')
    results = f'The supernet: {checkpoint}\nDetections of three subnets: {picture}'
    if full:
        page = sample('configs/shapes_sample_accuracy.py', checkpoint, work_dir)
        results += (f'\nA page to choose a subnet from: {page}'
                    f'\nThe smallest subnet, to be shipped: {ship(checkpoint, work_dir)}')
    return results


def classify(work_dir: Path) -> str:
    """The demo of a classifier; returns what came out of it."""
    run(['tools/make_digits.py', 'data/digits'], work_dir / 'digits.log')
    checkpoint = train('configs/digits_supnet.py', 'configs/digits_evaluate_subnet.py', work_dir)
    print_table(work_dir, 'accuracy/top1', 'head.hidden', 'image size')
    page = sample('configs/digits_sample_accuracy.py', checkpoint, work_dir)
    return f'The supernet: {checkpoint}\nA page to choose a subnet from: {page}'


SAMPLE = """
_base_ = {base!r}
test_cfg = dict(_delete_=True, type='mmbignas.SampleAccuracyLoop', image_size=[128, 128], subnet_count=12)
"""


def print_family(work_dir: Path) -> None:
    """Print what the members of a family cost, and how good they are with BN calibration."""
    record = json.loads(max(work_dir.glob('*/evaluation.json'), key=os.path.getmtime).read_text())
    rows = [['subnet', 'MMACs', 'parameters', 'ms', 'mAP, BN calibrated']]
    rows += [[own['name'], f'{own["macs"] / 1e6:.1f}', f'{own["params"]:,}', f'{own["latency"]["median"]:.1f}',
              f'{own["metrics_calib"]["coco/bbox_mAP"]:.3f}'] for own in record['subnets']]
    print(AsciiTable(rows).table)


def stock(work_dir: Path, epochs: int) -> str:
    """The demo of a stock detector that becomes a family; returns what came out of it.

    Args:
        work_dir: folder for results.
        epochs: length of each of the two trainings.
    """
    alone, family, config = work_dir / 'alone', work_dir / 'family', work_dir / 'family.py'
    family.mkdir(exist_ok=True)
    run(['tools/make_shapes.py', DATA], work_dir / 'shapes.log')
    run(['tools/train.py', 'configs/shapes_retinanet.py', '--work-dir', str(alone), '--cfg-options',
         f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}', f'param_scheduler.1.end={epochs}'],
        work_dir / 'alone.log', show=r'coco/bbox_mAP: ')
    run(['tools/make_supernet.py', 'configs/shapes_retinanet.py', (alone / 'last_checkpoint').read_text(), '--out',
         str(config), '--epochs', str(epochs), '--overwrite'], work_dir / 'make.log', show='^([|+]|large|small|[0-9])')
    checkpoint = train(str(config), str(config), family)
    print_family(family)
    (work_dir / 'family_sample.py').write_text(SAMPLE.format(base=config.name))
    page = sample(str(work_dir / 'family_sample.py'), checkpoint, work_dir)
    folder = work_dir / f'min_{time.strftime("%Y%m%d_%H%M%S")}'
    run(['tools/export_subnet.py', str(config), str(checkpoint), '--subnet', 'min', '--out', str(folder)],
        work_dir / 'export.log', show='^(min|BN stat|outputs|in |the)')
    return (f'The family: {checkpoint}\nIts layers: {config.with_suffix(".png")}'
            f'\nA page to choose a subnet from: {page}\nThe smallest subnet, for MMDetection alone: {folder}')


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--full', action='store_true',
                      help='also evaluate a sample of subnets, and export, fine-tune and deploy one')
    kind.add_argument('--cls', action='store_true', help='a classifier of digits in place of a detector of shapes')
    kind.add_argument('--elastic', action='store_true', help='a stock detector of MMDetection, which becomes a family')
    parser.add_argument('--epochs', type=int, default=EPOCHS,
                        help=f'with --elastic, of the detector and of the family (default: {EPOCHS})')
    parser.add_argument('--work-dir', type=Path, help='folder for results (default: work_dirs/demo, with --cls '
                        'work_dirs/demo_cls, with --elastic work_dirs/demo_elastic)')
    args = parser.parse_args()
    name = 'demo_cls' if args.cls else 'demo_elastic' if args.elastic else 'demo'
    work_dir = (args.work_dir or ROOT / 'work_dirs' / name).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault('OMP_NUM_THREADS', str(os.cpu_count() or 1))
    begin = time.time()
    minutes = 9 if args.full else 6 if args.elastic else 4
    print(f'A supernet on a toy data set: about {minutes} minutes on two CPU cores. Results go to {work_dir}.')
    if args.elastic:
        results = stock(work_dir, args.epochs)
    else:
        results = classify(work_dir) if args.cls else detect(work_dir, args.full)
    print(f'\n{time.time() - begin:.0f} s. {results}')


if __name__ == '__main__':
    main()
