# How good the subnets of the ResNet-18 supernet are.
#   mim test mmbignas configs/resnet18_sample_accuracy.py --checkpoint CHECKPOINT
_base_ = ['_base_/resnet18_imagenet.py', '_base_/steps/imagenet_sample_accuracy.py']

test_cfg = dict(
    image_size=[224, 224],
    flops_range=['1G', '3.7G'],
    # Multiply-adds of the usual ResNet-18 and ResNet-34.
    baseline_flops='1.81G',
    large_flops='3.66G')
