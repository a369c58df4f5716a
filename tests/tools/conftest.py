"""One run of the tools that several files of tests look at."""
import pytest

from tests.runs import CONFIG, ROOT, python, records_of


@pytest.fixture(scope='session')
def workspace(tmp_path_factory):
    """A folder with the data and the config; the runs go below it."""
    folder = tmp_path_factory.mktemp('runs')
    python('tools/make_shapes.py', folder / 'data', '--train', 12, '--val', 4, '--size', 64)
    text = CONFIG.format(base=str(ROOT / 'configs' / 'shapes_supnet.py'), data=f'{folder}/data')
    (folder / 'config.py').write_text(text)
    return folder


@pytest.fixture(scope='session')
def whole(workspace):
    """A run without interruption."""
    python('tools/train.py', workspace / 'config.py', '--work-dir', workspace / 'whole')
    return workspace / 'whole'


@pytest.fixture(scope='session')
def tested(workspace, whole):
    """A test of its checkpoint."""
    python('tools/test.py', workspace / 'config.py', whole / 'epoch_2.pth', '--work-dir', workspace / 'tested')
    return records_of(workspace / 'tested', 'test')
