# How good the subnets of the RegNet supernet are: each one is calibrated and evaluated.
#   mim test mmbignas configs/regnet_800m_sample_accuracy.py --checkpoint CHECKPOINT
# See retinanet_r18_sample_accuracy.py for what there is to choose and what comes out.
_base_ = './regnet_800m_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleAccuracyLoop',
    image_size=[224, 224],
    subnet_count=2000,
    subnet_sample_mode='random',
    flops_range=['500M', '1.2G'],
    # Multiply-adds of RegNetX-800M itself; half as many again.
    baseline_flops='799.7M',
    large_flops='1.2G',
    metric1='accuracy/top1',
    metric2='accuracy/top5',
    val_images=10000,  # a fixed choice of the 50,000, for a first ranking
    parallel='subnet')
