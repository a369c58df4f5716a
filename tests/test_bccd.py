"""The config for one's own data, on the data set that it names."""
import json
import math
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmbignas.supernet import Supernet

ROOT = Path(__file__).parents[1]


def data_root():
    for folder in (os.environ.get('BCCD_ROOT'), ROOT.parent / 'shared' / 'data' / 'bccd'):
        if folder and Path(folder, 'annotations', 'train.json').is_file():
            return str(folder)
    return None


@pytest.mark.skipif(data_root() is None, reason='the environment variable BCCD_ROOT names no folder with the BCCD data '
                    '(annotations/train.json), and ../shared/data/bccd beside the repository is none')
def test_trains_on_real_images(tmp_path, monkeypatch):
    """A few images and iterations: the loss falls, all layers learn, and the evaluated subnets are recorded."""
    monkeypatch.setenv('BCCD_ROOT', data_root())
    monkeypatch.setattr(Runner, '_log_env', lambda self, env_cfg: None)
    cfg = Config.fromfile(ROOT / 'configs' / 'retinanet_r18_supnet_bccd.py')
    assert cfg.data_root == data_root()
    for loader, count in ((cfg.train_dataloader, 16), (cfg.val_dataloader, 4), (cfg.test_dataloader, 4)):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.indices = count
    cfg.work_dir, cfg.log_level, cfg.experiment_name = str(tmp_path), 'ERROR', 'bccd'
    cfg.visualizer.name = 'bccd'
    cfg.train_cfg.update(max_epochs=3, val_interval=3)
    cfg.param_scheduler = None
    cfg.custom_hooks[0].num_images = 8
    cfg.randomness = dict(seed=0)
    runner = Runner.from_cfg(cfg)
    before = {name: value.clone() for name, value in runner.model.named_parameters()}
    runner.train()
    losses = runner.message_hub.log_scalars['train/loss'].data[0]
    assert len(losses) == runner.iter == 6
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-2:]) < sum(losses[:2])
    assert not [name for name, value in runner.model.named_parameters()
                if value.dim() > 1 and torch.equal(value, before[name])]
    with open(f'{runner.log_dir}/subnets_val.jsonl') as file:
        lines = [json.loads(line) for line in file]
    assert [line['name'] for line in lines] == ['max_calib', 'min_calib']
    space = Supernet(runner.model).space
    assert [line['subnet_settings'] for line in lines] == [space.max().to_dict(), space.min().to_dict()]
