"""mim finds tools and configs from any folder, in a wheel and in an editable install, with no variable exported."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

MISSING = [package for package in ('build', 'pip', 'setuptools', 'wheel', 'mim') if find_spec(package) is None]
pytestmark = [
    pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f'needs {", ".join(MISSING)}')]

ROOT = Path(__file__).parents[2]
PACKAGED = ('mmbignas', 'tools', 'configs', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'Makefile')
ONEDL = 'onedl-mim' in packages_distributions().get('mim', ())
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


# Of the package's own config: two images a class, one pass over them.
TINY_CONFIG = """
_base_ = {base!r}
train_dataloader = dict(batch_size=10)
train_cfg = dict(max_epochs=1, val_interval=1, image_size_list=[[24, 24]])
val_cfg = dict(image_size=[[24, 24]])
test_cfg = dict(subnets=['min'], calib_bn=True, image_size=[[24, 24]])
custom_hooks = [dict(type='mmbignas.BNCalibrationHook', num_images=10)]
param_scheduler = None
default_hooks = dict(checkpoint=dict(interval=1))
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
def dist(source):
    """Return the folder that ``make wheel`` fills."""
    subprocess.run(['make', 'wheel', f'PYTHON={sys.executable}'], cwd=source, check=True)
    return source / 'dist'


@pytest.fixture(scope='module')
def wheel(dist):
    [path] = dist.glob('mmbignas-*.whl')
    return path


@pytest.fixture(scope='module')
def elsewhere(tmp_path_factory):
    """Return a folder outside of the repository with a user's module."""
    folder = tmp_path_factory.mktemp('elsewhere')
    (folder / 'toy.py').write_text(TOY_MODULE)
    return folder


def clean_environment():
    """This process's variables without those of Python, such as ``PYTHONPATH``."""
    return {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}


def mim(*args, cwd, python=sys.executable, **variables):
    """Run mim with nothing of Python's exported but ``variables``, and return what it wrote."""
    env = {**clean_environment(), 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', **variables}
    done = subprocess.run([python, '-m', 'mim', *args], env=env, cwd=cwd, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def test_sdist_and_wheel_carry_everything(source, dist, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(file.relative_to(source)) for file in (source / 'mmbignas').rglob('*')
              if file.is_file() and '__pycache__' not in file.parts}
    wanted |= {f'mmbignas/.mim/{file.relative_to(source)}' for folder in ('tools', 'configs')
               for file in (source / folder).rglob('*.py')}
    assert {Path(name).suffix for name in wanted} >= {'.py', '.js', '.typed'}
    assert wanted <= names
    assert not {name.split('/')[0] for name in names} - {'mmbignas', wheel.name.split('-py3')[0] + '.dist-info'}

    [archive] = dist.glob('mmbignas-*.tar.gz')
    with tarfile.open(archive) as file:
        names = {member.name.partition('/')[2] for member in file.getmembers()}
    assert wanted <= names
    assert {str(file.relative_to(source)) for file in (source / 'tools').rglob('*.py')} <= names
    assert {'setup.py', 'pyproject.toml', 'LICENSE'} <= names
    assert not list(source.glob('*.egg-info'))


@pytest.mark.skipif(ONEDL, reason='onedl-mim 0.5.1 takes the metadata of a wheel for its package; it finds editable '
                    'installs')
def test_mim_trains_and_tests_with_the_wheel(wheel, elsewhere, tmp_path):
    site = tmp_path / 'site'
    subprocess.run([*PIP, 'install', *LOCAL, '--target', site, wheel], check=True)
    path = f'{site}{os.pathsep}{elsewhere}'

    launcher = ['--launcher', 'pytorch', '--gpus', '2'] if not torch.cuda.is_available() else []
    output = mim('train', 'mmbignas', 'toy_of_mim.py', '--work-dir', 'out', *launcher, PYTHONPATH=path, cwd=elsewhere)
    assert str(site / 'mmbignas/.mim/tools/train.py') in output
    assert ('Distributed launcher: pytorch' if launcher else 'Distributed launcher: none') in output

    checkpoint = elsewhere / 'out/epoch_1.pth'
    arguments = ('toy_of_mim.py', '--checkpoint', str(checkpoint), '--work-dir', 'out', '--out', 'out/result.pkl')
    output = mim('test', 'mmbignas', *arguments, PYTHONPATH=path, cwd=elsewhere)
    assert 'seen: 8' in output
    assert (elsewhere / 'out/result.pkl').exists()


@pytest.fixture(params=['this environment', 'a new environment'])
def editable(request, source, tmp_path):
    """Return the Python of an environment with an editable install, and the folder that it was installed from."""
    if request.param == 'this environment':
        try:
            url = json.loads(distribution('mmbignas').read_text('direct_url.json') or '{}')
        except PackageNotFoundError:
            url = {}
        if url.get('url') != ROOT.as_uri() or not url['dir_info'].get('editable'):
            pytest.skip('this folder is not installed here in editable mode')
        return Path(sys.executable), ROOT

    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'env'], check=True)
    [site] = (tmp_path / 'env').glob('lib/python3*/site-packages')
    (site / 'outer.pth').write_text('\n'.join(path for path in sys.path if path.endswith('-packages')))
    python = tmp_path / 'env/bin/python'
    subprocess.run([python, *PIP[1:], 'install', *LOCAL, '--editable', source], env=clean_environment(), check=True)
    return python, source


@pytest.mark.timeout(600)
def test_mim_trains_and_tests_with_an_editable_install(editable, tmp_path):
    python, repository = editable
    folder = tmp_path / 'elsewhere'
    for part, label, index in [(part, label, index) for part in ('train', 'val') for label in range(10)
                               for index in range(2)]:
        file = folder / f'data/digits/{part}/{label}/{index}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((32, 32), 20 * label, np.uint8))
    (folder / 'tiny.py').write_text(TINY_CONFIG.format(base=str(repository / 'configs/digits_supnet.py')))

    output = mim('train', 'mmbignas', 'tiny.py', cwd=folder, python=python)
    assert f'{repository}/' in output.partition('Training command is')[2].splitlines()[0]
    checkpoint = folder / 'work_dirs/tiny/epoch_1.pth'
    assert checkpoint.exists()
    output = mim('test', 'mmbignas', 'tiny.py', '--checkpoint', str(checkpoint), cwd=folder, python=python)
    assert 'accuracy/top1' in output
    if not ONEDL:  # onedl-mim searches the whole repository, where it meets each config twice
        code = ("from mim.utils import get_installed_path, recursively_find as find\n"
                "print(find(get_installed_path('mmbignas'), 'digits_supnet.py', followlinks=True))")
        done = subprocess.run([python, '-W', 'ignore', '-c', code], env=clean_environment(), cwd=folder, check=True,
                              capture_output=True, text=True)
        assert done.stdout.strip() == str([str(repository / 'mmbignas/.mim/configs/digits_supnet.py')])


def test_an_editable_install_has_no_copies(editable):
    """What runs is this folder's code, and pip knows all that it has to remove."""
    python, repository = editable
    code = 'import importlib.util as u; print(u.find_spec("mmbignas").origin)'
    done = subprocess.run([python, '-c', code], env=clean_environment(), cwd='/', capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == str(repository / 'mmbignas/__init__.py')
    [site] = python.parents[1].glob('lib/python3*/site-packages')
    assert not (site / 'mmbignas').exists()
