# What subnets of the digits' supernet cost, and how good they are without and with BN calibration.
_base_ = './digits_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.EvaluateSubnetLoop',
    subnets=['max', 'random', 'min'],
    calib_bn='both',
    image_size=[[24, 24], [32, 32]],
    latency=dict(backend='torch', device='cpu', threads=1, batch_size=1),
    metric1='accuracy/top1')
