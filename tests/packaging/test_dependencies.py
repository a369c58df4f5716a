"""What is missing, broken or unfit is named, with the versions that fit."""

import sys

import pytest

import mmbignas
from mmbignas import DependencyError
from mmbignas.dependencies import REQUIRED, check_dependencies, require_mmpretrain
from tests.processes import python

ONEDL_VERSIONS = {'mmengine': '0.10.12', 'mmcv': '2.3.6', 'mmdet': '3.5.1', 'mmpretrain': '1.3.6'}


@pytest.mark.parametrize('name', [requirement.name for requirement in REQUIRED])
def test_missing_package_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=f'{name} is not installed.*Versions that fit: .*{name} >= '):
        check_dependencies()


@pytest.mark.parametrize(('name', 'version'), [('torch', '1.13.1+cpu'), ('mmcv', '1.7.2'), ('mmdet', '2.28.2')])
def test_unfit_version_is_named(monkeypatch, name, version):
    monkeypatch.setattr(f'{name}.__version__', version)
    with pytest.raises(DependencyError, match=rf'{name} {version[:3]}.* does not fit.*{name} >= '):
        check_dependencies()


def test_all_unfit_packages_are_named_at_once(monkeypatch):
    monkeypatch.setattr('mmengine.__version__', '0.7.4')
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    with pytest.raises(DependencyError, match='mmengine 0.7.4 does not fit; pycocotools is not installed'):
        check_dependencies()


def test_onedl_forks_fit(monkeypatch):
    for name, version in ONEDL_VERSIONS.items():
        module = pytest.importorskip(name)
        monkeypatch.setattr(module, '__version__', version)
        monkeypatch.delattr(module, 'version_info', raising=False)
    check_dependencies()


def test_mmcv_without_operators_is_named(monkeypatch):
    for module in [module for module in sys.modules if module.startswith('mmcv.ops')]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    with pytest.raises(DependencyError, match='mmcv cannot be imported.*not mmcv-lite'):
        check_dependencies()


def test_broken_torchvision_is_named(monkeypatch, tmp_path):
    pytest.importorskip('mmpretrain')
    (tmp_path / 'torchvision.py').write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for check in (check_dependencies, lambda: require_mmpretrain('a classifier')):
        with pytest.raises(DependencyError, match='torchvision::nms does not exist.*the torchvision that matches'):
            check()


def test_mmpretrain_is_missed_only_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    check_dependencies()
    with pytest.raises(DependencyError, match='a classifier cannot be used here: mmpretrain is not installed'):
        require_mmpretrain('a classifier')


def test_import_fails_with_the_message():
    code = "import sys; sys.modules['mmdet'] = None; import mmbignas"
    _, errors = python('-c', code, code=1, split=True)
    last_line = errors.splitlines()[-1]
    assert 'mmdet is not installed' in last_line
    assert 'mmdet >= ' in last_line


def test_version_is_a_release_number():
    assert all(part.isdigit() for part in mmbignas.__version__.split('.'))


def test_packages_of_the_extras_are_not_needed_at_import():
    names = ('optuna', 'plotly', 'sklearn', 'onnx', 'onnxruntime', 'onnxscript')
    code = f"""
import sys
sys.modules.update(dict.fromkeys({names!r}))  # None: cannot be imported
import mmbignas
from mmbignas import DependencyError
try:
    import mmbignas.search
except DependencyError as error:
    print(error)
"""
    assert 'mmbignas[search]' in python('-c', code)
