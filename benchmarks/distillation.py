"""What in-place distillation brings: supernets trained with and without it, on the demo's shapes or on BCCD.

    python tools/make_shapes.py data/shapes
    python benchmarks/distillation.py [--seeds 0 1 2] [--variants none logits ...]
    BCCD_ROOT=... python benchmarks/distillation.py --config configs/retinanet_r18_supnet_bccd.py

Each variant is a training of the config with other jobs, for each seed; then the largest and the smallest subnet are
calibrated and evaluated. On a CPU core, a training takes 4 minutes of the shapes, and half an hour of BCCD. Every one
that ends adds a line to ``runs.jsonl`` in the work dir, and is not repeated by the next start. The figures are the mAP,
mean and range over the seeds; the last line is JSON.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ROOT / 'configs' / 'shapes_supnet.py'
WARM_UP = 200
FEATURES = dict(neck=dict(mimic_name='neck', loss=dict(type='mmbignas.FeatureMSELoss'), loss_weight=0.1,
                          warm_up_iters=WARM_UP))
LOGITS = dict(cls=dict(mimic_name='bbox_head.retina_cls', loss=dict(type='mmbignas.DenseKLLoss'),
                       warm_up_iters=WARM_UP))
BOXES = dict(box=dict(mimic_name=['bbox_head.retina_reg', 'bbox_head.retina_cls'],
                      loss=dict(type='mmbignas.DenseGIoULoss'), warm_up_iters=WARM_UP))
VARIANTS = {
    'none': {},
    'features': FEATURES,
    'logits': LOGITS,
    'features + logits': {**FEATURES, **LOGITS},
    'logits + boxes': {**LOGITS, **BOXES},
}
SUBNETS = ('max', 'min')


def train(config: Path, variant: str, seed: int, folder: Path) -> dict[str, float]:
    """Train a supernet and evaluate it.

    Args:
        config: of the supernet.
        variant: a key of :data:`VARIANTS`.
        seed: of the run.
        folder: its work dir.

    Returns:
        dict: name of a subnet -> mAP with calibrated statistics.
    """
    cfg = Config.fromfile(config)
    jobs = VARIANTS[variant]
    hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'mmbignas.DistillHook']
    cfg.custom_hooks = hooks + ([dict(type='mmbignas.DistillHook', jobs=jobs)] if jobs else [])
    cfg.randomness = dict(seed=seed)
    cfg.train_cfg.val_interval = cfg.train_cfg.max_epochs
    cfg.val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=list(SUBNETS), calib_bn=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'config.py'
    cfg.dump(path)
    environment = {'OMP_NUM_THREADS': '1', **os.environ}
    with (folder / 'train.log').open('w') as log:
        subprocess.run([sys.executable, '-W', 'ignore', 'tools/train.py', str(path), '--work-dir', str(folder)],
                       cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    scalars = max(folder.glob('*/vis_data/scalars.json'), key=os.path.getmtime)
    last = json.loads(scalars.read_text().splitlines()[-1])
    return {name: last[f'{name}_calib/coco/bbox_mAP'] for name in SUBNETS}


def main() -> None:
    """Train all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='a training for each')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS), help='what is compared')
    parser.add_argument('--config', type=Path, default=SHAPES, help='of the supernet')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/distillation'), help='folder for all runs')
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    record = args.work_dir / 'runs.jsonl'
    runs = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {(run['config'], run['variant'], run['seed']): run['mAP'] for run in runs}
    wanted = [(variant, seed) for seed in args.seeds for variant in args.variants]
    for number, (variant, seed) in enumerate(wanted, 1):
        key = (args.config.stem, variant, seed)
        if key not in done:
            name = f'{args.config.stem}_{variant.replace(" + ", "_")}_{seed}'
            done[key] = train(args.config, variant, seed, (args.work_dir / name).resolve())
            with record.open('a') as file:
                file.write(json.dumps(dict(config=key[0], variant=variant, seed=seed, mAP=done[key])) + '\n')
        print(f'{number} of {len(wanted)}: {variant}, seed {seed}: {done[key]}', flush=True)
    print(f'\n{"variant":18s}' + ''.join(f'{name:>24s}' for name in SUBNETS))
    values = {}
    for variant in args.variants:
        values[variant] = {name: [done[args.config.stem, variant, seed][name] for seed in args.seeds]
                           for name in SUBNETS}
        print(f'{variant:18s}' + ''.join(f'{statistics.mean(own):8.3f} ({min(own):.3f} to {max(own):.3f})'
                                         for own in values[variant].values()))
    print(f'runs: {args.work_dir}')
    print(json.dumps(dict(name='distillation', unit='mAP', value=values, config=args.config.stem, seeds=args.seeds)))


if __name__ == '__main__':
    main()
