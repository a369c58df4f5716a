# The best subnets of the TrashNet supernet below a number of MACs.
_base_ = './regnet_trashnet_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SubnetSearchLoop',
    image_size=[[48, 48], [64, 64]],
    subnet_count=100,
    constraints=dict(macs='8M'),
    metric1='accuracy/top1')
