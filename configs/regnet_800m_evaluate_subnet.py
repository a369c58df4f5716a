# What subnets of the RegNet supernet cost, and how good they are.
#   mim test mmbignas configs/regnet_800m_evaluate_subnet.py --checkpoint CHECKPOINT
_base_ = ['_base_/regnet_800m_imagenet.py', '_base_/steps/imagenet_evaluate_subnet.py']

test_cfg = dict(
    subnets=[
        'max',
        'min',
        dict(
            name='regnetx_800m',  # of arXiv 2003.13678
            subnet_settings={'backbone': dict(out_channel=[32, 64, 128, 288, 672], depth=[1, 1, 3, 7, 5])})],
    image_size=[224, 224])
