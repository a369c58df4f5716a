"""Dense heads."""
from mmbignas.models.dense_heads.big_retina_head import BigRetinaHead
from mmbignas.models.dense_heads.big_rpn_head import BigRPNHead

__all__ = ['BigRPNHead', 'BigRetinaHead']
