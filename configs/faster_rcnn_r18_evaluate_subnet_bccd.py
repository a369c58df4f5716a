# What subnets of the supernet on your own data cost, and how good they are without and with BN calibration.
#   BCCD_ROOT=/path/to/bccd mim test mmbignas configs/faster_rcnn_r18_evaluate_subnet_bccd.py --checkpoint CHECKPOINT
# of other subnets, one of them in a file:
#   ... --cfg-options "test_cfg.subnets=['max','my.yaml']"
_base_ = './faster_rcnn_r18_supnet_bccd.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.EvaluateSubnetLoop',
    subnets=['max', 'middle', 'min'],
    calib_bn='both',
    image_size=[256, 320],  # 240x320, padded to multiples of 32
    latency=dict(backend='torch', device='cpu', threads=1, batch_size=1),  # None: not measured
    metric1='coco/bbox_mAP')  # in the table; metric2 for one more
