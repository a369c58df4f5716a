# How good the subnets of the supernet on your own data are: each one is calibrated and evaluated.
#   BCCD_ROOT=/path/to/bccd mim test mmbignas configs/retinanet_r18_sample_accuracy_bccd.py --checkpoint CHECKPOINT
_base_ = './retinanet_r18_supnet_bccd.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleAccuracyLoop',
    image_size=[256, 320],  # 240x320, padded to multiples of 32
    subnet_count=100,
    baseline_flops='200M',
    metric1='coco/bbox_mAP',
    metric2='coco/bbox_mAP_50',
    parallel='subnet')  # with several processes, each evaluates subnets of its own
