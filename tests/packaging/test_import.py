"""Importing the package brings nothing heavy: what it needs for single tasks is imported by these."""

import subprocess
import sys

CODE = """
import sys
import mmdet.utils, mmengine, mmpretrain.utils
mmdet.utils.register_all_modules()
mmpretrain.utils.register_all_modules()
before = set(sys.modules)
import mmbignas
print('brought:', *sorted({name.partition('.')[0] for name in set(sys.modules) - before}))
"""


def test_import_brings_no_other_package():
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', CODE], capture_output=True, text=True, check=True)
    brought = done.stdout.splitlines()[-1].split()
    assert brought[0] == 'brought:'
    assert set(brought[1:]) - sys.stdlib_module_names == {'mmbignas'}
