# What subnets of the ResNet-18 supernet cost, and how good they are.
#   mim test mmbignas configs/resnet18_evaluate_subnet.py --checkpoint CHECKPOINT
_base_ = ['_base_/resnet18_imagenet.py', '_base_/steps/imagenet_evaluate_subnet.py']

test_cfg = dict(
    subnets=[
        'max',
        'min',
        dict(
            name='r18',  # with a deep stem: 2.07 GMACs
            subnet_settings={'backbone': dict(out_channel=[64, 64, 128, 256, 512], depth=[1, 2, 2, 2, 2])})],
    image_size=[224, 224])
