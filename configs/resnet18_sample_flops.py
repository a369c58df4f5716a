# What the subnets of the ResNet-18 supernet cost, before any training.
#   python tools/sample_flops.py configs/resnet18_sample_flops.py
_base_ = ['_base_/resnet18_imagenet.py', '_base_/steps/sample_flops.py']

test_cfg = dict(
    image_size=[224, 224],
    # Multiply-adds of the usual ResNet-18 and ResNet-34.
    baseline_flops='1.81G',
    large_flops='3.66G')
custom_hooks = []  # BN calibration would look for the data
