"""The commands of docs/tutorials/elastic_detector.md, one after the other, on few images and for one epoch."""
from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from tests.docs.test_readme import blocks
from tests.runs import MMDET_TOOLS, ROOT, python

pytestmark = pytest.mark.slow
PAGE = (ROOT / 'docs' / 'tutorials' / 'elastic_detector.md').read_text().replace('epoch_16', 'epoch_1')
# What makes it short: of a config, and of a tool.
ONE_EPOCH = {'max_epochs=16, val_interval=16': 'max_epochs=1, val_interval=1', 'end=50': 'end=2', 'end=16': 'end=1',
             'interval=8': 'interval=1', 'batch_size=8': 'batch_size=4'}
FEW = dict(make_shapes='--train 12 --val 4', make_supernet='--epochs 1', sample_flops='--subnet-count 20')


def run(command: str, folder: Path) -> str:
    """Run a command of the page in a folder."""
    first, *words = shlex.split(command)
    if first == 'mim':
        kind, package, *rest = words
        assert package == 'mmdet'
        arguments = [word for word in rest if word != '--checkpoint']
        return python(MMDET_TOOLS / f'{kind}.py', *arguments, cwd=folder, imported=False)
    assert first == 'python'
    tool = Path(words[0]).stem
    return python(ROOT / words[0], *words[1:], *FEW.get(tool, '').split(), cwd=folder)


def test_all_commands(tmp_path: Path) -> None:
    text = (ROOT / 'configs' / 'shapes_retinanet.py').read_text()
    for long, short in ONE_EPOCH.items():
        assert long in text, long
        text = text.replace(long, short)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'shapes_retinanet.py').write_text(text)
    said = {command: run(command, tmp_path) for block in blocks(PAGE, 'bash') for command in block.splitlines()}

    written = Config.fromfile(str(tmp_path / 'work_dirs' / 'family.py')).model
    written.init_cfg.checkpoint = str(Path(written.init_cfg.checkpoint).relative_to(tmp_path))
    [shown] = [block for block in blocks(PAGE, 'python') if 'mmbignas.Elastic' in block]
    (tmp_path / 'work_dirs' / 'shown.py').write_text(shown)
    promised = Config.fromfile(str(tmp_path / 'work_dirs' / 'shown.py')).model
    assert written.to_dict() == promised.to_dict()

    tables = [text for command, text in said.items() if 'tools/test.py work_dirs/family.py' in command]
    assert len(tables) == 1 and all(name in tables[0] for name in ('max', 'middle', 'min'))
    small, medium = (json.loads((tmp_path / 'exported' / name / 'certificate.json').read_text())
                     for name in ('small', 'medium'))
    assert small['bit_for_bit'] and medium['bit_for_bit'] and small['macs'] < medium['macs']
    files = re.findall(r'`(\w+\.\w+)`', PAGE[PAGE.index('A folder has'):].split('. The config')[0])
    assert sorted(path.name for path in (tmp_path / 'exported' / 'medium').iterdir()) == sorted(files)
    assert 'coco/bbox_mAP' in said['mim test mmdet exported/small/config.py --checkpoint exported/small/checkpoint.pth']
    assert (tmp_path / 'exported' / 'small' / 'detector.onnx').stat().st_size > 1000
    stock = torch.load(tmp_path / 'work_dirs' / 'alone' / 'epoch_1.pth', weights_only=False)['state_dict']
    family = torch.load(tmp_path / 'work_dirs' / 'family' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert {name: value.shape for name, value in stock.items()} == {name: value.shape for name, value in family.items()}
