"""Missing data files are found in the config, before anything is loaded."""
import os

import pytest
from mmengine.config import Config, ConfigDict

from mmbignas.data.check_data import check_classes, check_dataset_files, check_files
from mmbignas.errors import ConfigError
from mmbignas.supernet import Checkpoint
from tests.toy import ToyDataset


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'train.json').touch()
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    return str(tmp_path)


def coco(root, ann_file='annotations/train.json', img='images/train', **kwargs):
    return dict(type='CocoDataset', data_root=root, ann_file=ann_file, data_prefix=dict(img=img), **kwargs)


def wrap(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets))


def repeat(dataset):
    return dict(type='RepeatDataset', times=2, dataset=dataset)


ACCEPTED = {
    'plain': coco,
    'slash': lambda root: coco(f'{root}/', img='images/train/'),
    'empty prefix': lambda root: coco(root, img=''),
    'no prefix': lambda root: dict(type='X', data_root=root, ann_file='annotations/train.json'),
    'prefix is a string': lambda root: dict(type='X', data_root=root, data_prefix='images/train'),
    'prefix is None': lambda root: dict(type='X', data_root=root, data_prefix=None, ann_file=None),
    'prefix is no path': lambda root: dict(type='X', data_root=root, data_prefix=dict(img=None, seg=['a'])),
    'no files': lambda root: dict(type='X'),
    'empty ann_file': lambda root: coco(root, ann_file=''),
    'absolute': lambda root: coco('', f'{root}/annotations/train.json', f'{root}/images'),
    'absolute beside a root': lambda root: coco('nowhere', f'{root}/annotations/train.json', f'{root}/images'),
    'relative to the working folder': lambda root: coco('', 'annotations/train.json', 'images'),
    'no root': lambda root: coco(None, 'annotations/train.json', 'images'),
    'home': lambda root: dict(type='X', ann_file='~/annotations/train.json', data_prefix='~/images'),
    'home root': lambda root: coco('~'),
    's3': lambda root: coco('s3://bucket/data'),
    's3 file beside a root': lambda root: coco(root, 's3://bucket/a.json', 'http://host/images'),
    'a back end of its own': lambda root: coco('elsewhere', backend_args=dict(backend='petrel')),
    'the local back end': lambda root: coco(root, backend_args=dict(backend='local')),
    'no back end': lambda root: coco(root, backend_args=None),
    'wrapped': lambda root: repeat(wrap(coco(root), repeat(coco(root)))),
    'a ConfigDict': lambda root: ConfigDict(repeat(coco(root))),
    'a data set that downloads its files': lambda root: dict(type='X', data_root=f'{root}/new', split='train'),
    'an object': lambda root: ToyDataset(1),
    'objects in a wrapper': lambda root: wrap(ToyDataset(1), coco(root)),
    'None': lambda root: None,
}
REFUSED = {
    'annotations': (lambda root: coco(root, 'annotations/val.json'), 'ann_file', 'annotations/val.json'),
    'folder': (lambda root: coco(root, img='images/val'), 'data_prefix.img', 'images/val'),
    'a second folder': (lambda root: dict(data_root=root, data_prefix=dict(img='images', seg='masks')),
                        'data_prefix.seg', 'masks'),
    'prefix is a string': (lambda root: dict(type='X', data_root=root, data_prefix='val'), 'data_prefix', 'val'),
    'root': (lambda root: coco(f'{root}/coco'), 'ann_file', 'coco/annotations/train.json'),
    'root of an empty prefix': (lambda root: coco(f'{root}/coco', '', ''), 'data_prefix.img', 'coco/'),
    'absolute': (lambda root: coco(root, f'{root}/a.json'), 'ann_file', 'a.json'),
    'relative': (lambda root: coco('', 'a.json'), 'ann_file', 'a.json'),
    'home': (lambda root: coco('', '~/a.json'), 'ann_file', 'a.json'),
    'the local back end': (lambda root: coco(root, 'a.json', backend_args=dict(backend='local')), 'ann_file', 'a.json'),
    'one of the folders': (lambda root: coco('s3://bucket', img=f'{root}/val'), 'data_prefix.img', 'val'),
    'repeated': (lambda root: repeat(coco(root, 'a.json')), 'dataset.ann_file', 'a.json'),
    'concatenated': (lambda root: wrap(coco(root), coco(root, 'a.json')), 'datasets[1].ann_file', 'a.json'),
    'nested': (lambda root: repeat(wrap(repeat(coco(root, img='x')))), 'dataset.datasets[0].dataset.data_prefix.img',
               'x'),
    'a ConfigDict': (lambda root: ConfigDict(wrap(coco(root, 'a.json'))), 'datasets[0].ann_file', 'a.json'),
}


@pytest.mark.parametrize('name', ACCEPTED)
def test_accepted(root, name):
    check_dataset_files(ACCEPTED[name](root), 'train_dataloader.dataset')


@pytest.mark.parametrize('name', REFUSED)
def test_refused(root, name):
    make, key, path = REFUSED[name]
    with pytest.raises(ConfigError) as error:
        check_dataset_files(make(root), 'train_dataloader.dataset')
    message = str(error.value)
    assert message.startswith(f'train_dataloader.dataset.{key}: ')
    assert '\n' not in message
    named = message.split(': ')[1].split(' does not exist')[0]
    assert named.endswith(path)
    assert not os.path.exists(os.path.expanduser(named))
    assert 'does not exist (paths are relative to data_root' in message


def run_cfg(folder, **changes):
    return Config({**dict(
        model=dict(type='X'), train_cfg=dict(type='EpochBasedTrainLoop'), test_cfg=dict(type='TestLoop'),
        train_dataloader=dict(dataset=dict(type='CocoDataset', data_root=str(folder), ann_file='train.json')),
        test_dataloader=dict(dataset=dict(type='CocoDataset', data_root=str(folder), ann_file='test.json')),
    ), **changes})


def test_the_files_of_a_run(tmp_path):
    with pytest.raises(ConfigError, match='train_dataloader.dataset.ann_file: .*train.json does not exist'):
        check_files(run_cfg(tmp_path), ['train', 'val'])
    (tmp_path / 'train.json').touch()
    check_files(run_cfg(tmp_path), ['train', 'val'])
    with pytest.raises(ConfigError, match='test_dataloader.dataset.ann_file: .*test.json does not exist'):
        check_files(run_cfg(tmp_path), ['test'])
    check_files(run_cfg(tmp_path, test_cfg=dict(type='mmbignas.SampleFlopsLoop')), ['test'])  # which needs none
    check_files(run_cfg(tmp_path, test_cfg=None), ['test'])


def test_the_checkpoint_that_a_model_starts_from(tmp_path):
    (tmp_path / 'train.json').touch()
    init = dict(type='mmbignas.SupernetCheckpoint', checkpoint=str(tmp_path / 'x.pth'))
    cfg = run_cfg(tmp_path, model=dict(type='X', parts=[dict(type='Y', init_cfg=[dict(type='Normal'), init])]))
    with pytest.raises(ConfigError, match=r'model.parts\[0\].init_cfg\[1\].checkpoint: .*x.pth does not exist'):
        check_files(cfg, ['train'])
    (tmp_path / 'test.json').touch()
    check_files(cfg, ['test'])
    (tmp_path / 'x.pth').touch()
    check_files(cfg, ['train'])
    init['checkpoint'] = 'https://somewhere/x.pth'
    check_files(run_cfg(tmp_path, model=dict(init_cfg=init)), ['train'])


def test_classes_of_data_and_checkpoint():
    cfg = Config(dict(test_dataloader=dict(dataset=dict(metainfo=dict(classes=('a', 'b'))))))
    check_classes(cfg, Checkpoint('x.pth', {}, dict(dataset_meta=dict(classes=('a', 'b')))))
    check_classes(cfg, Checkpoint('x.pth', {}, {}))
    check_classes(Config(dict()), Checkpoint('x.pth', {}, dict(CLASSES=('c',))))
    with pytest.raises(ConfigError, match=r"test_dataloader.dataset.metainfo.classes must be \('b', 'a'\), as in "
                       r"x.pth, got \('a', 'b'\)"):
        check_classes(cfg, Checkpoint('x.pth', {}, dict(dataset_meta=dict(classes=['b', 'a']))))


def test_classes_of_a_file_and_within_wrappers(tmp_path):
    """They are those that the data set reads, not what stands in the config."""
    (tmp_path / 'classes.txt').write_text('a\nb\n')
    leaf = dict(type='CocoDataset', metainfo=dict(classes=str(tmp_path / 'classes.txt')))
    for dataset in (leaf, repeat(leaf), wrap(dict(type='CocoDataset'), repeat(leaf))):
        cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
        check_classes(cfg, Checkpoint('x.pth', {}, dict(dataset_meta=dict(classes=('a', 'b')))))
        with pytest.raises(ConfigError, match=r"metainfo.classes must be \('b', 'a'\), as in x.pth, got \('a', 'b'\)"):
            check_classes(cfg, Checkpoint('x.pth', {}, dict(dataset_meta=dict(classes=('b', 'a')))))
    leaf['metainfo']['classes'] = 'elsewhere.txt'  # a file of the machine that trained
    check_classes(Config(dict(train_dataloader=dict(dataset=leaf))), Checkpoint('x.pth', {}, dict(CLASSES=('a', ))))
