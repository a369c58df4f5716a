"""What does not change while the tests run is found out once per process, and by the server before it forks.

A config with a base such as ``mmdet::_base_/default_runtime.py`` has MMEngine read the index of all configs of that
package and look whether it is installed, which takes half a second for each base. Real processes are left as they are.
"""
import contextlib
import functools

INDEXED = ('mmdet', 'mmpretrain')


def find_out_once():
    """Have MMEngine keep what it found out about installed packages, and the text of a config that it formatted."""
    from mmengine.config import config, utils
    if hasattr(utils.load, 'cache_info'):
        return
    utils.load = functools.cache(utils.load)
    config.is_installed = functools.cache(config.is_installed)
    formatted = functools.cache(lambda text, style, options: formatter(text, style_config=dict(style), **dict(options)))
    formatter = config.FormatCode  # a Runner has the same config formatted three times, and again for each checkpoint
    config.FormatCode = lambda text, style_config, **options: formatted(
        text, tuple(style_config.items()), tuple(options.items()))


def warm_up():
    """Let it be found out now, for all processes that are forked from this one."""
    from mmengine.config import config, utils
    find_out_once()
    for package in INDEXED:
        if config.is_installed(package):
            with contextlib.suppress(ValueError):  # there is no such config
                utils._get_cfg_metainfo(config.get_installed_path(package), '')
    config.FormatCode('x = 1', style_config=dict(based_on_style='pep8'))  # yapf reads its grammar
