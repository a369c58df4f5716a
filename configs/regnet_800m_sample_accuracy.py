# How good the subnets of the RegNet supernet are.
#   mim test mmbignas configs/regnet_800m_sample_accuracy.py --checkpoint CHECKPOINT
_base_ = ['_base_/regnet_800m_imagenet.py', '_base_/steps/imagenet_sample_accuracy.py']

test_cfg = dict(
    image_size=[224, 224],
    flops_range=['500M', '1.2G'],
    # Multiply-adds of RegNetX-800M itself; half as many again.
    baseline_flops='799.7M',
    large_flops='1.2G')
