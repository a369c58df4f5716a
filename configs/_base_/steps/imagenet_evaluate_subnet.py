# What subnets cost, and how good they are without and with BN calibration: a table at the end, and evaluation.json in
# the run's folder.
test_cfg = dict(
    type='mmbignas.EvaluateSubnetLoop',
    calib_bn='both',
    latency=dict(backend='torch', device='cpu', threads=1, batch_size=1),  # None: not measured
    metric1='accuracy/top1',
    metric2='accuracy/top5')
