"""A wheel carries tools and configs, and mim finds them from any folder: one process, or two with gloo."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

MISSING = [package for package in ('pip', 'setuptools', 'wheel', 'mim') if find_spec(package) is None]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f'needs {", ".join(MISSING)}')]

ROOT = Path(__file__).parents[2]
PACKAGED = ('mmbignas', 'tools', 'configs', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE')
PIP = (sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check')
LOCAL = ('--no-deps', '--no-build-isolation', '--no-index')

TOY_CONFIG = """
custom_imports = dict(imports=['toy', 'mmbignas'])
model = dict(type='ToyModel')
sampler = dict(type='DefaultSampler', shuffle=False)
train_dataloader = dict(dataset=dict(type='ToyData'), sampler=sampler, batch_size=2, num_workers=0)
test_dataloader = train_dataloader
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
test_cfg = dict()
test_evaluator = dict(type='ToyMetric')
"""
TOY_MODULE = """
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS

@DATASETS.register_module()
class ToyData(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return dict(inputs=torch.full((3,), index / 8))

@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)
    def forward(self, inputs, mode):
        out = self.linear(torch.stack(inputs))
        return dict(loss=out.square().mean()) if mode == 'loss' else [dict(mean=value.item()) for value in out]

@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples
    def compute_metrics(self, results):
        return dict(seen=len(results))
"""


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Return a copy of the repository, since a build writes into its folder, with one config of a known name."""
    copy = tmp_path_factory.mktemp('source')
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, copy)
    (copy / 'configs/_base_').mkdir(parents=True, exist_ok=True)
    (copy / 'configs/_base_/toy_base.py').write_text(TOY_CONFIG)
    (copy / 'configs/toy_of_mim.py').write_text("_base_ = ['_base_/toy_base.py']\n")
    return copy


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    subprocess.run([*PIP, 'wheel', *LOCAL, '--wheel-dir', folder, source], check=True)
    return next(folder.glob('mmbignas-*.whl'))


@pytest.fixture(scope='module')
def elsewhere(tmp_path_factory):
    """Return a folder outside of the repository with a user's module."""
    folder = tmp_path_factory.mktemp('elsewhere')
    (folder / 'toy.py').write_text(TOY_MODULE)
    return folder


def mim(*args, path, cwd):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, path)), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, '-m', 'mim', *args], env=env, cwd=cwd, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def test_wheel_carries_tools_and_configs(source, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('tools', 'configs'):
        for file in (source / folder).rglob('*.py'):
            assert f'mmbignas/.mim/{file.relative_to(source)}' in names
    for file in (source / 'mmbignas').rglob('*.py'):
        assert str(file.relative_to(source)) in names


@pytest.mark.skipif('onedl-mim' in packages_distributions().get('mim', ()), reason='onedl-mim 0.5.1 takes the metadata '
                    'of a wheel for its package; it finds editable installs')
def test_mim_trains_and_tests_with_the_wheel(wheel, elsewhere, tmp_path):
    site = tmp_path / 'site'
    subprocess.run([*PIP, 'install', *LOCAL, '--target', site, wheel], check=True)
    path = (site, elsewhere)

    launcher = ['--launcher', 'pytorch', '--gpus', '2'] if not torch.cuda.is_available() else []
    output = mim('train', 'mmbignas', 'toy_of_mim.py', '--work-dir', 'out', *launcher, path=path, cwd=elsewhere)
    assert str(site / 'mmbignas/.mim/tools/train.py') in output
    assert ('Distributed launcher: pytorch' if launcher else 'Distributed launcher: none') in output

    checkpoint = elsewhere / 'out/epoch_1.pth'
    arguments = ('toy_of_mim.py', '--checkpoint', str(checkpoint), '--work-dir', 'out', '--out', 'out/result.pkl')
    output = mim('test', 'mmbignas', *arguments, path=path, cwd=elsewhere)
    assert 'seen: 8' in output
    assert (elsewhere / 'out/result.pkl').exists()


def test_mim_finds_an_editable_install(source, elsewhere, tmp_path):
    subprocess.run([*PIP, 'install', *LOCAL, '--target', tmp_path, '--editable', source], check=True)
    code = "from mim.utils import get_installed_path; print(get_installed_path('mmbignas'))"
    env = {**os.environ, 'PYTHONPATH': f'{source}{os.pathsep}{tmp_path}', 'PYTHONWARNINGS': 'ignore'}
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, env=env, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(source / 'mmbignas')
    assert (source / 'mmbignas/.mim/tools/train.py').exists()
