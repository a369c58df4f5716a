# What the subnets of the RegNet supernet cost, before any training.
#   python tools/sample_flops.py configs/regnet_800m_sample_flops.py
_base_ = ['_base_/regnet_800m_imagenet.py', '_base_/steps/sample_flops.py']

test_cfg = dict(
    image_size=[224, 224],
    # Multiply-adds of RegNetX-800M itself; half as many again.
    baseline_flops='799.7M',
    large_flops='1.2G')
custom_hooks = []  # BN calibration would look for the data
