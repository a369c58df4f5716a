"""The tutorial notebook runs from its first cell to its last, and its figures make sense."""
import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')
NOTEBOOK = Path(__file__).parents[2] / 'docs' / 'tutorials' / 'whole_process.ipynb'


def printed(cell) -> str:
    return ''.join(output.get('text', '') for output in cell.outputs if output.output_type == 'stream')


@pytest.mark.slow
def test_whole_process(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(NOTEBOOK.parents[2]), os.environ.get('PYTHONPATH', '')]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources=dict(metadata=dict(path=str(NOTEBOOK.parent)))).execute()
    text = '\n'.join(printed(cell) for cell in notebook.cells if cell.cell_type == 'code')
    assert '5184 subnets' in text
    calibrated = dict(re.findall(r'^(max|min) .*recalibrated ([\d.]+)$', text, re.MULTILINE))
    assert len(calibrated) == 2
    assert all(float(value) > 0.01 for value in calibrated.values())
    assert len(re.findall(r'^subnet +\d+ .*, AP50 [\d.]+', text, re.MULTILINE)) == 6
    assert text.count('<- the best') == 1
    assert "['certificate.json', 'checkpoint.pth', 'config.py']" in text
    assert 'bit for bit: True' in text
    assert '10 outputs' in text
