# How good the subnets of the digits' supernet are.
_base_ = './digits_supnet.py'

test_cfg = dict(_delete_=True, type='mmbignas.SampleAccuracyLoop', image_size=[[24, 24], [32, 32]], subnet_count=40,
                metric1='accuracy/top1')
