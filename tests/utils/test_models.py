"""Wrappers taken off, training flags put back."""
import pytest
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmbignas.utils.models import training_flags_kept, unwrapped
from tests.distributed import run_processes


def test_a_model_without_wrapper_is_itself():
    model = nn.Linear(1, 1)
    assert unwrapped(model) is model


def _wrapped(rank: int) -> None:
    model = nn.Linear(1, 1)
    assert unwrapped(MMDistributedDataParallel(model)) is model


def test_a_wrapper_is_taken_off():
    run_processes(_wrapped, world_size=1)


def test_flags_are_put_back_module_by_module_also_after_an_exception():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with pytest.raises(KeyError), training_flags_kept(model):
        model.train()
        model[2].eval()
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
