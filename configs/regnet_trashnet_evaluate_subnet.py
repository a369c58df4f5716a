# What subnets of the TrashNet supernet cost, and how good they are.
_base_ = './regnet_trashnet_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.EvaluateSubnetLoop',
    subnets=['max', 'middle', 'min'],
    calib_bn='both',
    image_size=[[48, 48], [64, 64]],
    latency=dict(backend='torch', device='cpu', threads=1, batch_size=1),
    metric1='accuracy/top1')
