# What subnets of the ResNet-18 supernet cost, and how good they are without and with BN calibration.
#   mim test mmbignas configs/resnet18_evaluate_subnet.py --checkpoint CHECKPOINT
# A table at the end, and evaluation.json in the run's folder.
_base_ = './resnet18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.EvaluateSubnetLoop',
    subnets=[
        'max',
        'min',
        dict(
            name='r18',  # with a deep stem: 2.07 GMACs
            subnet_settings={'backbone': dict(out_channel=[64, 64, 128, 256, 512], depth=[1, 2, 2, 2, 2])})],
    calib_bn='both',
    image_size=[224, 224],
    latency=dict(backend='torch', device='cpu', threads=1, batch_size=1),  # None: not measured
    metric1='accuracy/top1',
    metric2='accuracy/top5')
