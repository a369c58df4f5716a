# The best subnets of the mobile supernet under constraints.
#   mim test mmbignas configs/mobilenet_search.py --checkpoint CHECKPOINT
_base_ = ['_base_/mobilenet_imagenet.py', '_base_/steps/imagenet_search.py']

test_cfg = dict(
    image_size=[[192, 192], [224, 224], [256, 256], [288, 288]],
    constraints=dict(macs='500M'),
    baseline_flops='491M')
