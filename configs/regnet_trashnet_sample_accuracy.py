# How good the subnets of the TrashNet supernet are, in both image sizes.
_base_ = './regnet_trashnet_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleAccuracyLoop',
    image_size=[[48, 48], [64, 64]],
    subnet_count=150,
    subnet_sample_mode='random',
    baseline_flops='12M',
    metric1='accuracy/top1',
    parallel='subnet')
