# The same supernet with a quarter of the width, for small images and a CPU.
_base_ = './faster_rcnn_r18_supernet.py'
model = dict(
    backbone=dict(
        out_channel=dict(space=dict(min=[8, 8, 16, 32, 64], max=[16, 16, 32, 64, 128], stride=[8, 8, 8, 16, 32])),
        depth=dict(space=dict(min=[1, 1, 1, 1, 1], max=[1, 2, 2, 2, 2]))),
    neck=dict(in_channels=[16, 32, 64, 128],
              out_channel=dict(space=dict(min=[16, 16], max=[32, 32], stride=8))),
    rpn_head=dict(in_channels=32, tower=dict(out_channel=dict(space=dict(min=[32], max=[32])))),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fcs=dict(out_channel=dict(space=dict(min=[64], max=[96], stride=16))))),
    # Small images have few regions.
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)))
