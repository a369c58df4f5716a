# What subnets of the mobile supernet cost, and how good they are.
#   mim test mmbignas configs/mobilenet_evaluate_subnet.py --checkpoint CHECKPOINT
_base_ = ['_base_/mobilenet_imagenet.py', '_base_/steps/imagenet_evaluate_subnet.py']

test_cfg = dict(
    subnets=[
        'max',
        'min',
        dict(
            name='a0',  # AttentiveNAS-A0, 203 MMACs
            subnet_settings={
                'backbone': dict(
                    out_channel=[16, 16, 24, 32, 64, 112, 192, 216], depth=[1, 1, 3, 3, 3, 3, 3, 1],
                    kernel_size=[3, 3, 3, 3, 3, 3, 3, 3], expand_ratio=[1, 1, 4, 4, 4, 4, 6, 6]),
                'head.hidden': dict(out_channel=[1792], depth=[1]),
                'image_size': [192, 192]}),
        dict(
            name='a6',  # AttentiveNAS-A6, 709 MMACs
            subnet_settings={
                'backbone': dict(
                    out_channel=[16, 16, 24, 32, 64, 112, 216, 224], depth=[1, 1, 3, 3, 4, 4, 6, 1],
                    kernel_size=[3, 3, 3, 3, 3, 3, 5, 3], expand_ratio=[1, 1, 4, 6, 5, 4, 6, 6]),
                'head.hidden': dict(out_channel=[1984], depth=[1]),
                'image_size': [288, 288]})],
    image_size=[[192, 192], [224, 224], [256, 256], [288, 288]])
