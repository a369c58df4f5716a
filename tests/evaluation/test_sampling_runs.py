"""The whole way, by the test tools: two processes killed and started again, by MMDetection's own tool, and searched."""
import json
import os
import re
import shlex
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from mmengine.config import Config
from optuna.trial import TrialState
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.processes import launch, start_group
from tests.runs import MMDET_TOOLS, python

pytestmark = pytest.mark.slow

SAMPLE = """
_base_ = {base!r}
test_cfg = dict(_delete_=True, type='mmbignas.SampleAccuracyLoop', image_size=[64, 64], subnet_count={count},
                metric1='coco/bbox_mAP', predicted_count=50, parallel={parallel!r})
"""
COUNT = 14


@pytest.fixture(scope='module')
def config(workspace):
    def write(parallel='images', count=COUNT, more=''):
        path = workspace / f'sample_{parallel}_{count}_{len(more)}.py'
        path.write_text(SAMPLE.format(base=str(workspace / 'config.py'), parallel=parallel, count=count) + more)
        return path
    return write


@pytest.fixture(scope='module')
def sampled(workspace, whole, config):
    """A run without interruption, in one process."""
    text = python('tools/test.py', config(), whole / 'epoch_2.pth', '--work-dir', workspace / 'sampled')
    return lines_of(workspace / 'sampled'), text


def lines_of(folder):
    path = folder / 'sample_accuracy' / 'ledger.jsonl'
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:] if line.endswith('}')]
    assert len({line['number'] for line in lines}) == len(lines)
    return {line['number']: line for line in lines}


def test_what_is_said_and_written(workspace, sampled, tmp_path):
    lines, text = sampled
    assert len(lines) == COUNT
    assert f'{COUNT}/{COUNT} subnets: coco/bbox_mAP' in text and 'best so far' in text
    assert text.count('Evaluating bbox') == 1  # what is the same each time is said once
    folder = workspace / 'sampled' / 'sample_accuracy'
    assert f'in {folder}: results.json, subnets.csv' in text
    page = (folder / 'subnets.html').read_text()
    commands = {facts['facts'].split(',')[0]: facts['command'] for facts in json.loads(
        re.search(r'id="subnets">(\[.*?\])</script>', page)[1])}
    number, line = next(iter(lines.items()))
    tool, *arguments = shlex.split(commands[f'subnet {number}'])[1:]
    assert arguments[0] == f'{folder}/config.py'
    out = tmp_path / 'exported'
    python(tool, *arguments[:-1], out, '--calib-images', 0)
    certificate = json.loads((out / 'certificate.json').read_text())
    assert certificate['subnet_settings'] == line['subnet_settings'] and certificate['macs'] == line['macs']


FULL = """
import errno, os, runpy, sys
room, fsync = iter(range(5)), os.fsync
def full(file):
    if next(room, None) is None:
        os.ftruncate(file, os.fstat(file).st_size - 9)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(file)
os.fsync = full
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_a_disk_that_fills_up(workspace, whole, config, sampled, tmp_path):
    """One line says what could not be written; what was finished stays, and the same command does the rest."""
    command = ('tools/test.py', config(), whole / 'epoch_2.pth', '--work-dir', tmp_path)
    lines, _ = sampled
    ledger = tmp_path / 'sample_accuracy' / 'ledger.jsonl'
    text = python('-c', FULL, *command, code=2, imported=True)
    assert 'Traceback' not in text and 'Logging error' not in text
    [error] = [line for line in text.splitlines() if line.startswith('error')]
    assert error == (f'error: {ledger}: cannot be written (No space left on device); make room, and run the same '
                     'command again')
    before = lines_of(tmp_path)
    assert len(before) == 5
    python(*command)
    after = lines_of(tmp_path)
    assert {number: after[number] for number in before} == before  # evaluated once
    assert {number: line['metrics'] for number, line in after.items()} == {
        number: line['metrics'] for number, line in lines.items()}


@pytest.mark.parametrize('parallel', ['images', 'subnet'])
def test_two_processes_killed_and_started_again(workspace, whole, config, sampled, parallel, tmp_path):
    folder = workspace / f'killed_{parallel}'
    command = ['tools/test.py', config(parallel), whole / 'epoch_2.pth', '--work-dir', folder, '--launcher', 'pytorch']
    with open(tmp_path / 'output', 'w') as output:
        processes = start_group(command, [output, output])
    deadline = time.time() + 200
    while len(lines_of(folder)) < 3 and time.time() < deadline:
        time.sleep(.02)
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
    assert [process.wait() for process in processes] == [-signal.SIGKILL] * 2
    before = lines_of(folder)
    assert 3 <= len(before) < COUNT
    text = launch(*command)
    after = lines_of(folder)
    assert f'{len(before)} of {COUNT} subnets are finished, {COUNT - len(before)} are left' in text
    assert {number: after[number] for number in before} == before
    assert after.keys() == sampled[0].keys()
    for number, line in after.items():
        assert line['metrics'] == pytest.approx(sampled[0][number]['metrics'], abs=2e-3)
        assert line['macs'] == sampled[0][number]['macs']


def test_mmdetections_own_tool_and_a_part_of_the_images(workspace, whole, config, sampled):
    """The metrics are those of pycocotools by hand, to the last digit, on the chosen images alone."""
    more = "\ntest_cfg['val_images'] = 3\ntest_evaluator = dict(outfile_prefix={!r})\n".format(f'{workspace}/boxes')
    path = config(count=1, more=more)
    python(MMDET_TOOLS / 'test.py', path, whole / 'epoch_2.pth', '--work-dir', workspace / 'part')
    [line] = lines_of(workspace / 'part').values()
    truth = COCO(Config.fromfile(str(path)).test_evaluator.ann_file)
    boxes = workspace / f'subnet{line["number"]}' / 'boxes.bbox.json'
    own = COCOeval(truth, truth.loadRes(str(boxes)), 'bbox')
    ids = {box['image_id'] for box in json.loads(boxes.read_text())}
    assert len(ids) == 3 < len(truth.imgs)
    own.params.imgIds, own.params.maxDets = sorted(ids), [100, 300, 1000]
    own.evaluate()
    own.accumulate()
    own.summarize()
    assert line['metrics']['coco/bbox_mAP'] == own.stats[0]
    assert line['metrics']['coco/bbox_mAP_50'] == own.stats[1]
    whole_set = sampled[0][line['number']]['metrics']
    assert whole_set != line['metrics']
    assert any(value != round(value, 3) for value in [*line['metrics'].values(), *whole_set.values()])


SEARCH = """
_base_ = {base!r}
test_cfg = dict(_delete_=True, type='mmbignas.SubnetSearchLoop', image_size=[64, 64], subnet_count=12,
                metric1='coco/bbox_mAP', constraints=dict(macs='12M'), storage={storage!r})
"""


def test_two_commands_search_one_study(workspace, whole):
    """Started apart, they share the subnets through the storage alone."""
    path, storage = workspace / 'search.py', f'{workspace}/shared.db'
    path.write_text(SEARCH.format(base=str(workspace / 'config.py'), storage=storage))
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(python, 'tools/test.py', path, whole / 'epoch_2.pth', '--work-dir',
                            workspace / f'search{index}') for index in range(2)]
    texts = [run.result() for run in runs]
    study = optuna.load_study(study_name='subnets', storage=f'sqlite:///{storage}')
    lines = [trial.user_attrs['line'] for trial in study.trials if trial.state == TrialState.COMPLETE]
    numbers = [line['number'] for line in lines]
    assert 12 <= len(numbers) <= 13 and len(set(numbers)) == len(numbers)  # one more where both ask at the end
    assert all(line['macs'] <= 12 * 10**6 for line in lines)
    owners = [trial.user_attrs['owner'] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(set(owners)) == 2
    assert any(f'the study has {len(lines)} subnets' in text for text in texts)  # the last one to end knows of all


def test_the_command_of_a_run_with_options(workspace, whole, config, tmp_path):
    """Numbers depend on what was changed on the command line; names of files may have blanks."""
    checkpoint = workspace / 'my weights.pth'
    checkpoint.write_bytes((whole / 'epoch_2.pth').read_bytes())
    folder = workspace / 'with options'
    python('tools/test.py', config(count=1), checkpoint, '--work-dir', folder, '--cfg-options',
           'model.backbone.depth.space.min=[1,2,2,1,1]')
    [line] = lines_of(folder).values()
    page = (folder / 'sample_accuracy' / 'subnets.html').read_text()
    [facts] = json.loads(re.search(r'id="subnets">(\[.*?\])</script>', page)[1])
    tool, *arguments = shlex.split(facts['command'])[1:]
    python(tool, *arguments[:-1], tmp_path / 'exported too', '--calib-images', 0)
    certificate = json.loads((tmp_path / 'exported too' / 'certificate.json').read_text())
    assert certificate['subnet_settings'] == line['subnet_settings']
