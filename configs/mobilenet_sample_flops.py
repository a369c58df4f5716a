# What the subnets of the mobile supernet cost, before any training.
#   python tools/sample_flops.py configs/mobilenet_sample_flops.py
_base_ = ['_base_/mobilenet_imagenet.py', '_base_/steps/sample_flops.py']

test_cfg = dict(
    image_size=[[192, 192], [224, 224], [256, 256], [288, 288]],
    # Multiply-adds of AttentiveNAS-A5 and -A6.
    baseline_flops='491M',
    large_flops='709M')
custom_hooks = []  # BN calibration would look for the data
