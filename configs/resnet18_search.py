# The best subnets of the ResNet-18 supernet under constraints.
#   mim test mmbignas configs/resnet18_search.py --checkpoint CHECKPOINT
_base_ = ['_base_/resnet18_imagenet.py', '_base_/steps/imagenet_search.py']

test_cfg = dict(
    image_size=[224, 224],
    constraints=dict(macs='2.1G'),
    baseline_flops='1.81G')
