"""What is loaded as data from a checkpoint is not run, and deletes nothing, later on."""
import pickle

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from mmbignas.errors import ConfigError
from mmbignas.train import ResumeHook
from tests.toy import build_runner

HARMFUL = "open({!r}, 'w').close()\nmodel = dict(type='X')\n"


@pytest.fixture
def harm(tmp_path):
    """A file that a config makes when it is run."""
    return tmp_path / 'harm'


def checkpoint_of(folder, **options):
    saving = dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    build_runner(folder, hooks=[ResumeHook()], **saving, **options).train()
    return torch.load(folder / 'epoch_1.pth')


def test_resuming_runs_no_config(tmp_path, harm):
    """MMEngine runs ``meta['config']`` right after the checkpoint was loaded."""
    checkpoint = checkpoint_of(tmp_path)
    text = HARMFUL.format(str(harm))
    checkpoint['meta'].update(config=text, cfg=text)
    checkpoint['message_hub']['runtime_info']['cfg'] = text
    checkpoint['message_hub']['resumed_keys']['cfg'] = True
    torch.save(checkpoint, tmp_path / 'crafted.pth')
    runner = build_runner(tmp_path / 'b', hooks=[ResumeHook()], resume=True, load_from=str(tmp_path / 'crafted.pth'),
                          train_cfg=dict(max_epochs=2),
                          default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    runner.train()
    assert runner.iter == 8
    assert not harm.exists()
    written = pickle.dumps(torch.load(tmp_path / 'b' / 'epoch_2.pth'))
    assert str(harm).encode() not in written  # else whoever takes our checkpoint would run it


@pytest.mark.parametrize('place', ['meta', 'message_hub'])
def test_an_inferencer_runs_no_config_of_a_checkpoint(tmp_path, harm, place):
    text = HARMFUL.format(str(harm))
    content = dict(state_dict={}, meta={}, message_hub=dict(runtime_info={}))
    (content['meta'] if place == 'meta' else content['message_hub']['runtime_info'])['cfg'] = text
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ConfigError, match='a config that came in a checkpoint .* give the config as a file'):
        DetInferencer(weights=str(tmp_path / 'x.pth'), device='cpu')
    assert not harm.exists()


def test_other_texts_are_configs():
    assert Config.fromstring('x = 1', '.py').x == 1


def loaded(path, **info):
    torch.save(dict(state_dict={}, message_hub=dict(runtime_info=info)), path)
    return CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')['message_hub']['runtime_info']


def test_the_best_checkpoint_lies_beside(tmp_path):
    """MMEngine deletes it, be it a file or a folder, as soon as there is a better one."""
    (tmp_path / 'run').mkdir()
    (tmp_path / 'best_folder.pth').mkdir()
    for name in ('best_acc_epoch_1.pth', 'notes.pth', 'best_notes.txt'):
        (tmp_path / 'run' / name).write_text('')
        (tmp_path / name).write_text('')
    own = str(tmp_path / 'run' / 'best_acc_epoch_1.pth')
    for best, expected in ((own, own), ('/moved/run/best_acc_epoch_1.pth', own), (str(tmp_path), None),
                           (f'{tmp_path}/best_acc_epoch_2.pth', None), (f'{tmp_path}/run/notes.pth', None),
                           (f'{tmp_path}/run/best_notes.txt', None), (f'{tmp_path}/run/best_folder.pth', None),
                           (f'{tmp_path}/run/../best_folder.pth', None), ('..', None), (7, None), (None, None)):
        info = loaded(tmp_path / 'run' / 'epoch_1.pth', best_ckpt=best, best_ckpt_acc=best, best_score=1.)
        assert (info.get('best_ckpt'), info.get('best_ckpt_acc'), info['best_score']) == (expected, expected, 1), best


@pytest.mark.parametrize('kept', [['../../x'], 'text', [1, None], [True], {1: 2}])
def test_numbers_of_kept_checkpoints_are_numbers(tmp_path, kept):
    """MMEngine puts them into the names of files that it deletes."""
    assert 'keep_ckpt_ids' not in loaded(tmp_path / 'x.pth', keep_ckpt_ids=kept)
    assert loaded(tmp_path / 'x.pth', keep_ckpt_ids=[1, 2])['keep_ckpt_ids'] == [1, 2]


def test_a_resume_deletes_nothing_elsewhere(tmp_path):
    """A better one than what the checkpoint calls the best so far."""
    precious = tmp_path / 'precious'
    precious.mkdir()
    (precious / 'thesis').write_text('mine')
    options = dict(val_cfg={}, default_hooks=dict(checkpoint=dict(
        type='CheckpointHook', interval=1, save_best='min/toy/accuracy', rule='greater')))
    checkpoint = checkpoint_of(tmp_path / 'a')
    checkpoint['message_hub']['runtime_info'].update(best_ckpt=str(precious), best_score=-1.)
    checkpoint['message_hub']['resumed_keys'].update(best_ckpt=True, best_score=True)
    torch.save(checkpoint, tmp_path / 'a' / 'crafted.pth')
    runner = build_runner(tmp_path / 'b', hooks=[ResumeHook()], resume=True, load_from=str(tmp_path / 'a/crafted.pth'),
                          train_cfg=dict(max_epochs=2, val_interval=1), **options)
    runner.train()
    assert list((tmp_path / 'b').glob('best_*.pth'))
    assert (precious / 'thesis').read_text() == 'mine'
