# What the subnets of the mobile supernet cost, before any training; the data set need not be there.
#   python tools/sample_flops.py configs/mobilenet_sample_flops.py
_base_ = './mobilenet_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleFlopsLoop',
    image_size=[[192, 192], [224, 224], [256, 256], [288, 288]],
    subnet_count=10000,
    subnet_sample_mode='random',
    # Multiply-adds of AttentiveNAS-A5 and -A6.
    baseline_flops='491M',
    large_flops='709M')
custom_hooks = []  # BN calibration would look for the data
