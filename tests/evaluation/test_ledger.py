"""What is known of finished subnets survives, and is not mixed up."""
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.utils import register_all_modules

from mmbignas.errors import ConfigError
from mmbignas.evaluation.identity import annotation_hashes, config_hash, dataset_hash, model_hash, space_hash
from mmbignas.evaluation.ledger import Ledger, only_run
from mmbignas.space import ModuleSpace, SearchSpace
from tests.processes import PIPE, Process
from tests.toy import ToyDataset, ToyModel

IDENTITY = dict(supernet='a', space='b', data='c')
WRITER = """
import sys
from mmbignas.evaluation.ledger import Ledger
ledger = Ledger(sys.argv[1], dict(supernet='a', space='b', data='c'))
for number in range(int(sys.argv[2]), 10**9, 2):
    ledger.append(dict(number=number, text='x' * (number * 37 % 5000), metrics={}))
    print(number, flush=True)
"""


def test_lines_are_kept_in_order(tmp_path):
    path = tmp_path / 'new' / 'ledger.jsonl'
    ledger = Ledger(path, IDENTITY)
    numbers = [random.Random(seed).randrange(2**70) for seed in range(50)]
    for count, number in enumerate(numbers):
        ledger.append(dict(number=str(number), value=count / 3, metrics={}))
        assert list(ledger.lines()) == numbers[:count + 1]
    again = Ledger(path, IDENTITY).lines()
    assert [again[number]['value'] for number in numbers] == [count / 3 for count in range(50)]
    assert len(path.read_text().splitlines()) == 51


@pytest.mark.parametrize('cut', range(1, 30, 3))
def test_a_torn_line_is_passed_over(tmp_path, cut):
    path = tmp_path / 'ledger.jsonl'
    ledger = Ledger(path, IDENTITY)
    for number in range(3):
        ledger.append(dict(number=number, metrics={}, text='x' * 10))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    expected = [0, 1]
    ledger = Ledger(path, IDENTITY)
    assert list(ledger.lines()) == expected
    ledger.append(dict(number=2, text='y', metrics={}))
    # Without its newline alone, the line is complete.
    assert list(ledger.lines()) == list(Ledger(path, IDENTITY).lines()) == [0, 1, 2]
    assert Ledger(path, IDENTITY).lines()[2]['text'] == ('x' * 10 if cut == 1 else 'y')


def test_two_processes_killed_while_they_write(tmp_path):
    """Whatever a process said it had written is there."""
    path = tmp_path / 'ledger.jsonl'
    writers = [Process(['-c', WRITER, path, first], output=PIPE, imported=True) for first in range(2)]
    for writer in writers:
        writer.stdout.readline()
    time.sleep(.5)
    said = set()
    for first, writer in enumerate(writers):
        writer.send_signal(signal.SIGKILL)
        said |= {first, *(int(line) for line in writer.stdout.read().splitlines())}
    lines = Ledger(path, IDENTITY).lines()
    assert len(said) > 10
    assert said <= set(lines) and len(set(lines) - said) <= 2
    for number, line in lines.items():
        assert line['text'] == 'x' * (number * 37 % 5000)


@pytest.mark.parametrize(('change', 'named'), [
    (dict(supernet='z'), 'supernet'), (dict(space='z', data='y'), 'space, data'), (dict(data='z'), 'data')])
def test_figures_of_something_else_are_refused(tmp_path, change, named):
    path = tmp_path / 'ledger.jsonl'
    Ledger(path, IDENTITY).append(dict(number=3))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f'ledger.jsonl: holds figures of another {named}, .*another folder'):
        Ledger(path, {**IDENTITY, **change})
    assert path.read_bytes() == before


@pytest.mark.parametrize('content', ['', 'x', '[]\n', '{"number": 1}\n', '\xff\xfe'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / 'ledger.jsonl'
    path.write_bytes(content.encode('latin-1'))
    with pytest.raises(ConfigError, match='ledger.jsonl: is no record of evaluated subnets'):
        Ledger(path, IDENTITY)
    with pytest.raises(ConfigError, match='ledger.jsonl: cannot be read and written'):
        Ledger(path / 'x' / 'ledger.jsonl', IDENTITY)


def test_one_run_at_a_time(tmp_path):
    """Another process is kept away, but a worker of a run that was killed keeps nobody away."""
    path = tmp_path / 'ledger.jsonl'
    code = (f"import os, sys, time\nfrom pathlib import Path\nfrom mmbignas.evaluation.ledger import only_run\n"
            f"with only_run(Path({str(path)!r})):\n"
            "    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)\n"
            "    print('there', flush=True)\n    time.sleep(60)")
    run = Process(['-c', code], output=PIPE, imported=True)
    assert run.stdout.readline() == 'there\n'
    with pytest.raises(ConfigError, match='another run writes to it'), only_run(path):
        pass
    run.kill()
    run.wait()
    with only_run(path):
        pass
    os.killpg(run.pid, signal.SIGKILL)


@pytest.mark.parametrize('line', ['{"number": 5}', '{"number": "x", "metrics": {}}', '{"metrics": {}}', '[1]', 'no'])
def test_lines_that_are_none_are_passed_over(tmp_path, line):
    path = tmp_path / 'ledger.jsonl'
    ledger = Ledger(path, IDENTITY)
    path.write_text(path.read_text() + line + '\n')
    ledger.append(dict(number=3, metrics={}))
    assert list(ledger.lines()) == list(Ledger(path, IDENTITY).lines()) == [3]


# -- identity ---------------------------------------------------------------------------------------------------------


def test_model_hash_tells_weights_and_statistics_apart():
    model = ToyModel()
    before = model_hash(model)
    assert before == model_hash(ToyModel()) != model_hash(ToyModel(seed=1))
    for tensor in (model.head.weight, model.backbone.blocks[1][1].running_var):
        value = tensor.data.flatten()[0].clone()
        tensor.data.flatten()[0].add_(1e-6)
        assert model_hash(model) != before
        tensor.data.flatten()[0].copy_(value)
        assert model_hash(model) == before
    assert model_hash(torch.nn.Linear(2, 2).bfloat16()) != before


def space(sizes=(), **changes):
    elements = dict(depth=dict(space=dict(min=[1], max=[3], stride=1)),
                    out_channel=dict(space=dict(min=[4], max=[8], stride=2)))
    return SearchSpace(dict(backbone=ModuleSpace({**elements, **changes}, num_stages=1, key='backbone')), sizes)


def test_space_hash():
    others = [space(sizes=[(32, 32), (64, 64)]), space(kernel_size=[3]), space(kernel_size=[5]), space(
        out_channel=dict(space=dict(min=[4], max=[12], stride=4))), space(depth=[3]), space(
        kernel_size=dict(space=dict(min=[3], max=[5], stride=2))), space(
        kernel_size=dict(space=dict(min=[3], max=[5], stride=2), sample_strategy='block_wise'))]
    hashes = [space_hash(own) for own in [space(), *others]]
    assert len(set(hashes)) == len(hashes)
    assert space_hash(space()) == hashes[0]


def coco(folder, boxes=(1, 2, 30, 40), name='a.jpg', classes=('thing', )):
    folder.mkdir(exist_ok=True)
    content = dict(images=[dict(id=5, file_name=name, width=64, height=48)],
                   categories=[dict(id=1, name='thing'), dict(id=2, name='other')],
                   annotations=[dict(id=1, image_id=5, category_id=1, bbox=list(boxes), area=1200, iscrowd=0)])
    (folder / 'a.json').write_text(json.dumps(content))
    register_all_modules(init_default_scope=True)
    return CocoDataset(data_root=str(folder), ann_file='a.json', data_prefix=dict(img=''), pipeline=[],
                       metainfo=dict(classes=classes), test_mode=True)


def test_dataset_hash_is_that_of_the_content(tmp_path):
    expected = dataset_hash(coco(tmp_path / 'a'))
    assert dataset_hash(coco(tmp_path / 'moved')) == expected
    others = [dict(boxes=(1, 2, 30, 41)), dict(name='b.jpg'), dict(classes=('other', ))]
    hashes = {dataset_hash(coco(tmp_path / 'b', **own)) for own in others}
    assert len(hashes) == 3 and expected not in hashes
    assert dataset_hash(ToyDataset(5)) != dataset_hash(ToyDataset(6))


def test_config_hash_takes_places_for_nothing():
    cfg = dict(type='CocoMetric', ann_file='/a/b.json', metric=['bbox'], kind=ToyDataset, own=ToyModel())
    assert config_hash(cfg) == config_hash({**cfg, 'ann_file': '/c/b.json', 'own': ToyModel(seed=2)})
    for change in (dict(metric=['segm']), dict(kind=ToyModel), dict(more=None), dict(own=Path('x'))):
        assert config_hash({**cfg, **change}) != config_hash(cfg)


def test_annotation_files_count_by_their_content(tmp_path):
    cfg = dict(dataset=dict(type='RepeatDataset', dataset=dict(data_root=str(tmp_path), ann_file='a.json')),
               more=[dict(ann_file=str(tmp_path / 'a.json')), dict(ann_file=''), dict(ann_file='missing/b.json')])
    (tmp_path / 'a.json').write_text('[1]')
    first = annotation_hashes(cfg)
    assert len(first) == 3 and first[0] == first[1] and first[2] == 'b.json'
    (tmp_path / 'a.json').write_text('[2]')
    assert annotation_hashes(cfg)[0] != first[0]
