"""What all tests share: one thread, fixed seeds, no flood of MMEngine's weight-initialisation log."""
from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import settings
from mmdet.utils import register_all_modules
from mmengine.model import BaseModule
from mmengine.registry import init_default_scope

torch.set_num_threads(1)
register_all_modules()
BaseModule._dump_init_info = lambda *args, **kwargs: None  # type: ignore[method-assign]
settings.register_profile('mmbignas', deadline=None, derandomize=True, database=None)
settings.load_profile('mmbignas')


@pytest.fixture(autouse=True)
def scope() -> None:
    """Start every test in MMDetection's scope, whatever a Runner before it has set."""
    init_default_scope('mmdet')


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (MMDetection draws from the legacy generator)
    torch.manual_seed(0)
