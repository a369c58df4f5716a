"""Heads of classifiers; they need MMPretrain."""
from mmbignas.models.heads.big_linear_cls_head import BigLinearClsHead

__all__ = ['BigLinearClsHead']
