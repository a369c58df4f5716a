"""Leaving out what a logger and pycocotools say."""
from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def silence(logger: logging.Logger, level: int = logging.WARNING) -> Iterator[None]:
    """Let nothing below a level through, of the logger, and nothing of what prints, as pycocotools does.

    Args:
        logger: the logger.
        level: of what is logged nevertheless.
    """
    before = logger.level
    logger.setLevel(level)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
