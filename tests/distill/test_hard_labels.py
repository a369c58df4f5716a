"""Losses that are set aside."""
import pytest
import torch
from torch import nn

from mmbignas.distill import DistillJob, check_replaced, set_aside
from mmbignas.errors import ConfigError


def jobs_of(*replaced):
    return [DistillJob(f'DistillHook.jobs.job{index}', 'max', ('a', ), ('a', ), nn.Identity(), replaces=names)
            for index, names in enumerate(replaced)]


def losses_of():
    x = torch.arange(1., 4.).requires_grad_()
    return dict(loss_cls=x.sum(), loss_bbox=[x[0] * 2, x[1] * 3], aux=dict(), **{'d0.aux_loss': x.prod()}, acc=x.max())


@pytest.mark.parametrize(('replaced', 'renamed'), [
    ([('loss_cls', )], {'loss_cls': 'hard_label_cls'}),
    ([(), ('d0.aux_loss', 'loss_bbox')], {'d0.aux_loss': 'd0.aux_hard_label', 'loss_bbox': 'hard_label_bbox'}),
    ([('loss_cls', ), ('loss_cls', 'loss_bbox')], {'loss_cls': 'hard_label_cls', 'loss_bbox': 'hard_label_bbox'}),
    ([(), ()], {}),
])
def test_renamed_and_detached(replaced, renamed):
    before, losses = losses_of(), losses_of()
    set_aside(losses, jobs_of(*replaced))
    assert {*losses} == {renamed.get(name, name) for name in before}
    assert not any('loss' in name for name in renamed.values())
    for name, value in before.items():
        new = losses[renamed.get(name, name)]
        if name == 'aux':
            assert new == value
            continue
        listed = isinstance(value, list)
        assert isinstance(new, list) == listed
        for ours, theirs in zip(new if listed else [new], value if listed else [value], strict=True):
            assert torch.equal(ours, theirs)
            assert ours.requires_grad == (name not in renamed)


@pytest.mark.parametrize(('losses', 'name', 'allowed'), [
    (losses_of(), 'loss', 'loss_cls, loss_bbox, d0.aux_loss'),
    (losses_of(), 'acc', 'loss_cls, loss_bbox, d0.aux_loss'),
    (dict(acc=torch.ones(1)), 'acc', 'of which there are none'),
])
def test_names_that_are_no_losses(losses, name, allowed):
    before = {**losses}
    for function in (check_replaced, set_aside):
        with pytest.raises(ConfigError) as error:
            function(losses, jobs_of(('loss_cls', ) if 'loss_cls' in losses else (), (name, )))
        assert str(error.value) == (f"DistillHook.jobs.job1.replaces must be one of the model's losses, {allowed}, got "
                                    f'{name!r}')
        assert losses == before


def test_several_teachers_replace_the_same_loss():
    """The first one sets it aside; to the next, it is still one of the model's losses."""
    losses = losses_of()
    set_aside(losses, jobs_of(('loss_cls', )))
    before = {**losses}
    set_aside(losses, jobs_of(('loss_cls', )))
    assert losses == before and 'hard_label_cls' in losses
