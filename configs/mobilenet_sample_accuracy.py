# How good the subnets of the mobile supernet are.
#   mim test mmbignas configs/mobilenet_sample_accuracy.py --checkpoint CHECKPOINT
_base_ = ['_base_/mobilenet_imagenet.py', '_base_/steps/imagenet_sample_accuracy.py']

test_cfg = dict(
    image_size=[[192, 192], [224, 224], [256, 256], [288, 288]],
    flops_range=['300M', '900M'],
    # Multiply-adds of AttentiveNAS-A5 and -A6.
    baseline_flops='491M',
    large_flops='709M')
