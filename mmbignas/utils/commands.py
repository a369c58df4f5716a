"""Commands that are shown to be copied."""
from __future__ import annotations

import shlex
from pathlib import PurePath


def command(*words: object, **environment: object) -> str:
    """A command line that a shell takes as exactly these words, whatever characters are in them.

    Every command that is printed, or written into a page, comes from here: names of files and studies may be somebody
    else's, and what is pasted into a shell runs.

    Args:
        *words: the program and its arguments. A path that begins with a hyphen gets ``./`` in front, so that no program
            takes it for an option.
        **environment: variables that are set for it.

    Example:
        >>> command('python', 'tools/train.py', Path('a$(id) b.py'))
        "python tools/train.py 'a$(id) b.py'"
    """
    settings = [f'{name}={shlex.quote(str(value))}' for name, value in environment.items()]
    return ' '.join([*settings, shlex.join(map(_word, words))])


def _word(word: object) -> str:
    text = str(word)
    return f'./{text}' if isinstance(word, PurePath) and text.startswith('-') else text
