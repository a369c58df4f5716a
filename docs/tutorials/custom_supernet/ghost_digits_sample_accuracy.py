"""How good subnets of the digits' supernet are."""
_base_ = './ghost_digits.py'

test_cfg = dict(_delete_=True, type='mmbignas.SampleAccuracyLoop', image_size=[32, 32], subnet_count=40)
