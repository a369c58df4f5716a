"""What README.md and the pages of docs/ say can be done as it stands there."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmbignas.supernet import Supernet
from mmbignas.supernet.build import build_model
from tests.processes import python

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()
PAGES = sorted((ROOT / 'docs').rglob('*.md')) + [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


def commands(text: str) -> list[str]:
    """Commands of shell blocks and of table cells, each on one line, without comments."""
    shell = ''.join(blocks(text, 'bash')).replace('\\\n', ' ')
    lines = [line.partition('  #')[0] for line in shell.splitlines()]
    return [line.strip() for line in lines + re.findall(r'`((?:python tools/|mim |make )[^`\n]+)`', text)]


def test_readme_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_commands_name_what_is_there(page):
    targets = set(re.findall(r'^([a-z-]+):.*## ', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    for command in commands(page.read_text()):
        for tool in re.findall(r'(?:python|torchrun .*|\$TOOLS/)\s*((?:tools|benchmarks)/\w+\.py)', command):
            assert (ROOT / tool).is_file(), command
        for config in re.findall(r'configs/\w+\.py', command):
            assert (ROOT / config).is_file(), command
        if command.startswith('make '):
            assert command.split()[1] in targets, command
        for name in re.findall(r'mim run mmbignas (\w+)', command):
            assert (ROOT / 'tools' / f'{name}.py').is_file() or name in ('TOOL', 'NAME'), command


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\((?!https?://|#)([^)\s]+)\)', page.read_text()):
        file, _, heading = link.partition('#')
        target = (page.parent / file).resolve()
        if 'reference/api/' in str(target):
            continue  # written by the build, which checks these links
        assert target.exists(), link
        if heading and target.suffix == '.md':
            headings = re.findall(r'^#+ (.+)$', target.read_text(), re.MULTILINE)
            slugs = [re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-') for text in headings]
            assert heading in slugs, link


def test_readme_commands_have_their_options():
    """Each option of a command in the table is one of its tool."""
    rows = [command for command in commands(README) if command.startswith('python tools/')]
    assert len(rows) == 7
    for command in rows:
        source = (ROOT / command.split()[1]).read_text() + (ROOT / 'mmbignas' / 'cli.py').read_text()
        for option in re.findall(r'--[a-z-]+', command):
            assert f"'{option}'" in source, command


def test_the_family_is_a_config(tmp_path):
    """Its base is there, and the model is that of the base, but for its type."""
    config, _ = blocks(README, 'python')
    (tmp_path / 'family.py').write_text(config)
    model = Config.fromfile(tmp_path / 'family.py').model
    base = Config.fromfile(Config._get_cfg_path(re.findall("'(mmdet::.*?)'", config)[0], '')[0]).model
    assert model.type == 'mmbignas.Elastic' and model.of == f'mmdet.{base.type}'
    assert model.backbone == base.backbone and model.bbox_head == base.bbox_head


def test_the_diff_makes_a_supernet(tmp_path):
    """The lines before are a config with an ordinary network, those after it one with a supernet."""
    [diff] = blocks(README, 'diff')
    models = {}
    for name, left_out in dict(before='+', after='-').items():
        lines = [line[1:] for line in diff.splitlines() if not line.startswith(left_out)]
        (tmp_path / f'{name}.py').write_text('\n'.join(lines))
        cfg = Config.fromfile(tmp_path / f'{name}.py')
        cfg.model.backbone.init_cfg = None  # ResNet's own weights, from the network
        models[name] = build_model(cfg)
    assert not [module for module in models['before'].modules() if type(module).__module__.startswith('mmbignas')]
    assert Supernet(models['after']).space.size == 3 ** 5 * 2 ** 4 * 3
    assert cfg.train_cfg.type == 'mmbignas.SandwichTrainLoop'
    assert 20 <= len(diff.splitlines()) <= 30


def run(code: str, folder: Path) -> str:
    """Run an example in a process of its own, as a reader does, where it finds the configs."""
    (folder / 'configs').symlink_to(ROOT / 'configs')
    output, _ = python('-c', code, cwd=folder, split=True)
    return output


def test_readme_example(tmp_path):
    _, example = blocks(README, 'python')
    size, macs = run(example, tmp_path).split()
    assert size == '59049'
    assert 37e9 < int(macs) < 162e9


def test_example_of_costs(tmp_path):
    """It consists of assertions."""
    example = blocks((ROOT / 'docs' / 'howto' / 'costs.md').read_text(), 'python')[-1]
    assert example.count('assert ') == 6
    run(example, tmp_path)
    assert (tmp_path / 'small.yaml').is_file()


def test_example_of_a_hook(monkeypatch):
    """The hook of the page is called by the loop's hook points, whose table is complete."""
    from mmengine.logging import MessageHub
    from mmengine.registry import HOOKS
    page = (ROOT / 'docs' / 'reference' / 'hook_points.md').read_text()
    points = re.findall(r'^\| `(\w+)\(', page, re.MULTILINE)
    calls = {call for file in (ROOT / 'mmbignas').rglob('*.py')
             for call in re.findall(r"call_hook\(\s*'(\w*(?:subnet|sandwich)\w*)'", file.read_text())}
    assert set(points) == calls
    [example] = blocks(page, 'python')
    names: dict = {}
    try:
        exec(example, names)
        hook, hub = names['PassTimeHook'](), MessageHub.get_instance('test_example_of_a_hook')
        runner = type('Runner', (), dict(message_hub=hub))
        hook.before_subnet_forward(runner, type('SubnetPass', (), dict(name='max')))
        hook.after_subnet_backward(runner, type('SubnetPass', (), dict(name='max')), None)
        assert hub.get_scalar('train/max.seconds').current() >= 0
    finally:
        HOOKS.module_dict.pop('PassTimeHook', None)
