"""Dense heads."""
from mmbignas.models.dense_heads.big_retina_head import BigRetinaHead

__all__ = ['BigRetinaHead']
