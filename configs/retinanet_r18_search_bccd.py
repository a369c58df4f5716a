# The best subnets of the supernet on your own data under constraints.
#   BCCD_ROOT=/path/to/bccd mim test mmbignas configs/retinanet_r18_search_bccd.py --checkpoint CHECKPOINT
_base_ = './retinanet_r18_supnet_bccd.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SubnetSearchLoop',
    image_size=[256, 320],  # 240x320, padded to multiples of 32
    subnet_count=100,
    constraints=dict(macs='250M'),
    metric1='coco/bbox_mAP',
    metric2='coco/bbox_mAP_50',
    parallel='subnet')  # with several processes, each evaluates subnets of its own
