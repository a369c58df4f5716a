# What the subnets of the ResNet-18 supernet cost, before any training; the data set need not be there.
#   python tools/sample_flops.py configs/resnet18_sample_flops.py
_base_ = './resnet18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleFlopsLoop',
    image_size=[224, 224],
    subnet_count=10000,
    subnet_sample_mode='random',
    # Multiply-adds of the usual ResNet-18 and ResNet-34.
    baseline_flops='1.81G',
    large_flops='3.66G')
custom_hooks = []  # BN calibration would look for the data
