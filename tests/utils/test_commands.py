"""Commands to be copied: what a shell makes of them, whatever is in the names."""
from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.evaluation.results import export_command
from mmbignas.utils.commands import command

ROOT = Path(__file__).parents[2]
NAMES = ['plain', 'two words', 'a$(touch X)', '`touch X`', 'a;touch X', "it's", 'a"b', 'a\nb', '*', '~', '!x',
         'a&b|c>d', '$HOME', '\\', '#', '']
SHOWS = 'import sys; print(repr(sys.argv[1:]))'


@pytest.mark.parametrize('name', NAMES)
def test_a_shell_takes_it_as_it_is(tmp_path: Path, name: str) -> None:
    line = command(sys.executable, '-c', SHOWS, Path('x', name or '.'), f'--out={name}', name, VARIABLE=name)
    found = subprocess.run(['sh', '-c', line], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(found) == [str(Path('x', name or '.')), f'--out={name}', name]
    assert list(tmp_path.iterdir()) == []


def test_no_path_is_an_option() -> None:
    assert command('python', Path('-rf'), '--out', Path('a/-b'), 'CHECKPOINT') == 'python ./-rf --out a/-b CHECKPOINT'


@pytest.mark.parametrize('name', ['a$(touch X) b', "it's", '-rf'])
def test_the_command_that_exports_a_subnet(name: str) -> None:
    subnet = EvaluatedSubnet(10**30, {}, (8, 8), 1, 1)
    words = shlex.split(export_command(Path(name), name)(subnet))
    path = name if name != '-rf' else './-rf'
    assert words == ['python', 'tools/export_subnet.py', path, path, '--subnet', str(10**30), '--out',
                     f'exported/subnet{10**30}']
    assert 'https://host/w.pth' in export_command(Path('c.py'), 'https://host/w.pth')(subnet)


def test_no_command_is_put_together_by_hand() -> None:
    """A program's name and a value in one string: such a line is to come from ``command``."""
    program = re.compile(r'(python3?|mim (run|train|test)|optuna-dashboard|torchrun|srun|bash|cp|rm)\s[^\'"]*\{\}')
    found = []
    for path in [*(ROOT / 'mmbignas').rglob('*.py'), *(ROOT / 'tools').glob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = ''.join(str(part.value) if isinstance(part, ast.Constant) else '{}' for part in node.values)
                found += [f'{path}:{node.lineno}: {text}'] if program.search(text) else []
    assert found == []
