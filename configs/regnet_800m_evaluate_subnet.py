# What subnets of the RegNet supernet cost, and how good they are without and with BN calibration.
#   mim test mmbignas configs/regnet_800m_evaluate_subnet.py --checkpoint CHECKPOINT
# A table at the end, and evaluation.json in the run's folder.
_base_ = './regnet_800m_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.EvaluateSubnetLoop',
    subnets=[
        'max',
        'min',
        dict(
            name='regnetx_800m',  # of arXiv 2003.13678
            subnet_settings={'backbone': dict(out_channel=[32, 64, 128, 288, 672], depth=[1, 1, 3, 7, 5])})],
    calib_bn='both',
    image_size=[224, 224],
    latency=dict(backend='torch', device='cpu', threads=1, batch_size=1),  # None: not measured
    metric1='accuracy/top1',
    metric2='accuracy/top5')
