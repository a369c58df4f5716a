"""Files of ``torch.save`` with a digest of all that is in them.

The checksums of a ZIP file do not cover its own directory, and ``torch.load`` does not compare them. So a checkpoint is
sealed: SHA-256 of every byte of the file, written as the file's ZIP comment, which every other reader of such files
passes over. A file that was saved again by something else has no seal, and loads as one that never had any.
"""
from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

END = b'PK\5\6'  # begins the last record of a ZIP file, 22 bytes, of which the last two are the comment's length
END_BYTES = 22
MARK = b'mmbignas sha256:'
DAMAGED = 'its SHA-256 is not the one that was written with it'
SEAL_BYTES = len(MARK) + 64
LENGTH = SEAL_BYTES.to_bytes(2, 'little')


def sealed(content: bytes) -> list[bytes | memoryview]:
    """The content of a sealed file, in pieces to be written one after the other.

    Args:
        content: what ``torch.save`` wrote. What is no ZIP file, or has a comment, stays as it is.
    """
    if content[-END_BYTES:-END_BYTES + len(END)] != END or content[-2:] != b'\0\0':
        return [content]
    pieces: list[bytes | memoryview] = [memoryview(content)[:-2], LENGTH + MARK]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return [*pieces, digest.hexdigest().encode()]


def save_sealed(content: Any, path: str | Path) -> None:
    """Write a file as ``torch.save`` does, with a seal.

    Args:
        content: what to write.
        path: the file.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with open(path, 'wb') as file:
        file.writelines(sealed(buffer.getvalue()))


def is_as_written(path: str | Path) -> bool | None:
    """Whether a file is the one that was sealed, to the last bit; ``None`` for one without a seal."""
    with open(path, 'rb') as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - END_BYTES - SEAL_BYTES))
        tail = file.read()
        end = tail.rfind(END)
        # Any of these marks will do, so that no single damage makes it a file without a seal.
        in_place = end >= 0 and (len(tail) - end == END_BYTES + SEAL_BYTES
                                 or tail[end + END_BYTES - 2:end + END_BYTES] == LENGTH)
        if MARK not in tail and not in_place:
            return None
        file.seek(0)
        digest, left = hashlib.sha256(), length - 64
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest().encode() == tail[-64:]
