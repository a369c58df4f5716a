# What the subnets of the RegNet supernet cost, before any training; the data set need not be there.
#   python tools/sample_flops.py configs/regnet_800m_sample_flops.py
_base_ = './regnet_800m_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleFlopsLoop',
    image_size=[224, 224],
    subnet_count=10000,
    subnet_sample_mode='random',
    # Multiply-adds of RegNetX-800M itself; half as many again.
    baseline_flops='799.7M',
    large_flops='1.2G')
custom_hooks = []  # BN calibration would look for the data
