"""``tools/build_env.sh`` asks pip for one set of mm packages, the upstream ones or the forks, and builds once."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UPSTREAM = {'mmcv', 'mmengine', 'mmdet', 'mmpretrain', 'openmim'}
FORKS = {'onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmpretrain', 'onedl-mim'}

# In place of an interpreter: it writes down what pip is asked for, and says that it is Python 3.11.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
    '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    '-m pip '*) echo "$*" >> "$PIP_LOG" ;;
    *version_info*) echo True ;;
esac
"""


@pytest.fixture
def build(tmp_path):
    """Return a function that runs a copy of the script and returns the words of all calls of pip."""
    (tmp_path / 'tools').mkdir()
    for name in ('tools/build_env.sh', 'constraints.txt', 'constraints-onedl.txt'):
        shutil.copy(ROOT / name, tmp_path / name)
    python, log = tmp_path / 'python', tmp_path / 'log'
    for name in ('python', 'c++'):
        (tmp_path / name).write_text(FAKE_PYTHON)
        (tmp_path / name).chmod(0o755)

    def run(*options):
        log.write_text('')
        env = {**os.environ, 'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', 'PIP_LOG': str(log)}
        command = ['bash', tmp_path / 'tools/build_env.sh', *options, tmp_path / 'env', python]
        subprocess.run(command, env=env, check=True, capture_output=True)
        return log.read_text().split()

    return run


@pytest.mark.parametrize(('options', 'wanted', 'unwanted', 'constraints'), [
    ((), UPSTREAM, FORKS, 'constraints.txt'),
    (('--forks',), FORKS, UPSTREAM, 'constraints-onedl.txt'),
])
def test_one_set_of_packages_is_installed(build, tmp_path, options, wanted, unwanted, constraints):
    words = build(*options)
    assert wanted <= set(words)
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


def test_the_forks_have_constraints_of_their_own():
    text = (ROOT / 'constraints-onedl.txt').read_text()
    pinned = set(re.findall(r'^([a-z-]+)==', text, re.MULTILINE))
    assert pinned >= FORKS
    assert '-c constraints.txt' in text.splitlines()
    assert not pinned & set(re.findall(r'^([a-z-]+)==', (ROOT / 'constraints.txt').read_text(), re.MULTILINE))
