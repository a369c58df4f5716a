"""``tools/build_env.sh`` takes a supported Python, asks pip for one set of mm packages, and builds once."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UPSTREAM = {'mmcv', 'mmengine', 'mmdet', 'mmpretrain', 'openmim'}
FORKS = {'onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmpretrain', 'onedl-mim'}

# In place of an interpreter: it writes down what pip is asked for, and says that it is Python VERSION.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
    '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    '-m pip '*' cache list '*) echo " - $CACHED" ;;
    '-m pip '*) echo "$*" >> "$PIP_LOG"; case "$*" in *--no-build-isolation*mmcv)
        echo "CFLAGS=${CFLAGS-} CPPFLAGS=$CPPFLAGS" >> "$PIP_LOG" ;; esac ;;
    --version) echo Python VERSION.9 ;;
    *%d.%d*) echo VERSION ;;
    *%d%d*) echo VERSION | tr -d . ;;
    *'get_path("include")'*) dirname "$0" ;;
    *mmcv.ops*) [ -z "$CACHED" ] || grep -q 'cache remove' "$PIP_LOG" ;;
esac
"""


@pytest.fixture
def build(tmp_path):
    """Return a function that runs a copy of the script and returns the words of all calls of pip."""
    (tmp_path / 'tools').mkdir()
    for name in ('tools/build_env.sh', 'constraints.txt', 'constraints-onedl.txt'):
        shutil.copy(ROOT / name, tmp_path / name)
    log = tmp_path / 'log'
    (tmp_path / 'Python.h').touch()
    fake(tmp_path / 'c++', '0')
    (tmp_path / 'nvidia-smi').write_text('#!/bin/sh\nexit 1\n')
    (tmp_path / 'nvidia-smi').chmod(0o755)

    def run(*options, python=None, cached='', code=0):
        """Run it with fakes of all Pythons that it could look for, those that the test made; return pip's words."""
        for name in ('python3', 'python3.10', 'python3.11', 'python3.12', 'python3.13'):
            if not (tmp_path / name).exists():
                fake(tmp_path / name, '3.9')
        log.write_text('')
        path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
        env = {**os.environ, 'PATH': path, 'PIP_LOG': str(log), 'CACHED': cached}
        command = ['bash', tmp_path / 'tools/build_env.sh', *options, tmp_path / 'env', *([python] if python else [])]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else log.read_text().split()

    fake(tmp_path / 'python3', '3.11')
    return run


def fake(path, version):
    path.write_text(FAKE_PYTHON.replace('VERSION', version))
    path.chmod(0o755)


def version_in(folder):
    """Version of the Python that an environment was built with."""
    python = folder / 'bin/python'
    return subprocess.run([python, '--version'], capture_output=True, text=True, check=True).stdout.split()[1]


@pytest.mark.parametrize(('options', 'wanted', 'unwanted', 'constraints'), [
    ((), UPSTREAM, FORKS, 'constraints.txt'),
    (('--forks',), FORKS, UPSTREAM, 'constraints-onedl.txt'),
])
def test_one_set_of_packages_is_installed(build, tmp_path, options, wanted, unwanted, constraints):
    words = build(*options)
    assert wanted <= set(words)
    assert any(word.startswith('torch==') and word.endswith('+cpu') for word in words)  # there is no GPU
    assert not unwanted & set(words)
    files = {file for option, file in zip(words, words[1:]) if option == '--constraint'}
    assert files == {str(tmp_path / constraints)}


def test_an_environment_is_built_again_only_for_other_versions(build, tmp_path):
    assert build('--forks')
    assert not build('--forks')
    assert build()
    assert not build()
    assert build('--forks')
    with open(tmp_path / 'constraints.txt', 'a') as file:
        file.write('# another version\n')
    assert build('--forks')
    assert not build('--forks')


@pytest.mark.parametrize(('python3', 'others', 'expected'), [
    ('3.12', ['3.13'], '3.12'),  # python3 comes first
    ('3.14', ['3.10', '3.12'], '3.12'),  # then the newest
    ('3.9', ['3.13'], '3.13'),
])
def test_the_default_python(build, tmp_path, python3, others, expected):
    fake(tmp_path / 'python3', python3)
    for version in others:
        fake(tmp_path / f'python{version}', version)
    assert build()
    assert version_in(tmp_path / 'env') == f'{expected}.9'


def test_another_python_is_built_again(build, tmp_path):
    fake(tmp_path / 'named', '3.13')
    assert build()
    assert build(python=tmp_path / 'named')
    assert version_in(tmp_path / 'env') == '3.13.9'
    assert not build(python=tmp_path / 'named')
    assert not build()  # the one that is there will do


def test_no_other_python_is_taken(build, tmp_path):
    fake(tmp_path / 'named', '3.14')
    refused = 'BASE_PYTHON must be a Python 3.10 to 3.13, got named, which is Python 3.14.9'
    assert refused in build(python='named', code=1)
    assert 'must be a Python 3.10 to 3.13, got missing, which is not there' in build(python='missing', code=1)
    fake(tmp_path / 'python3', '3.14')
    assert 'no Python 3.10 to 3.13 is on the PATH (python3 is Python 3.14.9)' in build(code=1)
    fake(tmp_path / 'python3', '3.13')
    (tmp_path / 'Python.h').unlink()
    assert 'python3 has no Python.h' in build(code=1)


def test_mmcv_is_compiled_with_pythons_own_flags(build, monkeypatch):
    """Setuptools takes ``CFLAGS`` in place of Python's, which would leave the operators without optimisation."""
    monkeypatch.delenv('CFLAGS', raising=False)
    words = build()
    assert 'CFLAGS=' in words and '-g0' in words


def test_a_cached_mmcv_for_another_torch_is_compiled_again(build):
    words = build(cached='mmcv-2.1.0-cp311-cp311-linux_x86_64.whl (4 MB)')
    assert 'mmcv-*-cp311-*' in words
    assert words.count('mmcv') == 2 and words.count('--force-reinstall') == 1
    assert 'remove' not in build('--forks')


def test_the_forks_have_constraints_of_their_own():
    text = (ROOT / 'constraints-onedl.txt').read_text()
    pinned = set(re.findall(r'^([a-z-]+)==', text, re.MULTILINE))
    assert pinned >= FORKS
    assert '-c constraints.txt' in text.splitlines()
    assert not pinned & set(re.findall(r'^([a-z-]+)==', (ROOT / 'constraints.txt').read_text(), re.MULTILINE))
