"""The examples in docs/howto/distillation.md are hooks that can be built."""
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS

from mmbignas import distill

PAGE = (Path(__file__).parents[2] / 'docs' / 'howto' / 'distillation.md').read_text()
EXAMPLES = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)


@pytest.mark.parametrize('text', EXAMPLES)
def test_examples(text):
    hooks = [HOOKS.build(hook) for hook in Config.fromstring(text, '.py').custom_hooks]
    assert all(hook.jobs for hook in hooks)


def test_every_loss_is_in_the_table():
    losses = {name for name in distill.__all__ if name.endswith('Loss')}
    assert losses == set(re.findall(r'^\| `(\w+Loss)`', PAGE, re.MULTILINE))
    assert len(EXAMPLES) == 5
