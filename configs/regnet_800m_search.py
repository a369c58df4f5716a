# The best subnets of the RegNet supernet under constraints.
#   mim test mmbignas configs/regnet_800m_search.py --checkpoint CHECKPOINT
_base_ = ['_base_/regnet_800m_imagenet.py', '_base_/steps/imagenet_search.py']

test_cfg = dict(
    image_size=[224, 224],
    constraints=dict(macs='1G'),
    baseline_flops='799.7M')
