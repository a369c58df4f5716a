"""Necks."""
from mmbignas.models.necks.big_fpn import BigFPN

__all__ = ['BigFPN']
