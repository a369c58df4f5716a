# A part of the demo's space that is small enough to evaluate completely: 324 subnets. benchmarks/search.py needs it.
_base_ = './shapes_supnet.py'

model = dict(
    backbone=dict(
        out_channel=dict(space=dict(min=[16, 16, 16, 32, 64])),
        depth=dict(space=dict(min=[1, 2, 2, 1, 1]))))
test_cfg = dict(_delete_=True, type='mmbignas.SampleAccuracyLoop', image_size=[128, 128], subnet_count=324,
                subnet_sample_mode='traverse')
