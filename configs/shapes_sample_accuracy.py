# How good subnets of the demo's supernet are.
_base_ = './shapes_supnet.py'

test_cfg = dict(_delete_=True, type='mmbignas.SampleAccuracyLoop', image_size=[128, 128], subnet_count=40,
                baseline_flops='40M', large_flops='55M')
