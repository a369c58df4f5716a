"""What the search imports, and what it says without Optuna."""
from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import mmbignas.search
from mmbignas import DependencyError

ALLOWED = ('mmbignas.search', 'mmbignas.space', 'mmbignas.cost', 'mmbignas.errors', 'mmbignas.utils')


def test_neither_torch_nor_a_higher_room_is_imported() -> None:
    files = sorted(Path(mmbignas.search.__file__).parent.glob('*.py'))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                     [node.module or ''] if isinstance(node, ast.ImportFrom) else [])
            for name in names:
                assert not name.startswith(('torch', 'mmengine', 'mmdet', 'mmcv', 'mmpretrain')), file
                assert not name.startswith('mmbignas') or name.startswith(ALLOWED), file


@pytest.mark.parametrize('package', ['optuna', 'sklearn'])
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf'the search needs {package}, .*: pip install "mmbignas\[search\]"'):
        importlib.reload(mmbignas.search)
