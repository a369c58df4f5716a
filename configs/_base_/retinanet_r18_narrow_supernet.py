# The same supernet with a quarter of the width, for small images and a CPU.
_base_ = './retinanet_r18_supernet.py'
model = dict(
    backbone=dict(
        out_channel=dict(space=dict(min=[8, 8, 16, 32, 64], max=[16, 16, 32, 64, 128], stride=[8, 8, 8, 16, 32])),
        depth=dict(space=dict(min=[1, 1, 1, 1, 1], max=[1, 2, 2, 2, 2], stride=1))),
    neck=dict(in_channels=[32, 64, 128], out_channel=dict(space=dict(min=[32, 32], max=[32, 32]))),
    bbox_head=dict(
        in_channels=32, cls_tower=dict(depth=[2], out_channel=dict(space=dict(min=[16], max=[32], stride=8)))))
