# Faster R-CNN-R18 as a supernet: every element is a list (fixed) or a space with the way it is drawn. What is not said
# here is as in MMDetection's Faster R-CNN.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbignas.BigResNet',
        out_channel=dict(
            space=dict(min=[32, 48, 96, 192, 384], max=[64, 80, 160, 320, 640], stride=[16, 16, 32, 64, 128]),
            sample_strategy='stage_wise'),
        depth=dict(
            space=dict(min=[1, 1, 2, 2, 2], max=[1, 3, 4, 4, 4], stride=1),
            sample_strategy='stage_wise_depth'),
        kernel_size=[3, 3, 3, 3, 3],
        expand_ratio=[0.5, 1, 1, 1, 1],
        strides=[2, 1, 2, 2, 2],
        deep_stem=True,
        norm_cfg=norm_cfg),
    neck=dict(
        _delete_=True,
        type='mmbignas.BigFPN',
        in_channels=[80, 160, 320, 640],
        out_channel=dict(space=dict(min=[128, 128], max=[256, 256], stride=64), sample_strategy='net_wise'),
        kernel_size=[1, 3],
        num_outs=5,
        norm_cfg=norm_cfg),
    rpn_head=dict(
        type='mmbignas.BigRPNHead',
        # One choice, but given as a space: the neck's width changes, so the tower has to be dynamic too.
        tower=dict(depth=[1], out_channel=dict(space=dict(min=[256], max=[256])), kernel_size=[3])),
    roi_head=dict(
        bbox_roi_extractor=dict(type='mmbignas.BigRoIExtractor'),
        bbox_head=dict(
            _delete_=True,
            type='mmbignas.BigBBoxHead',
            in_channels=256,
            fcs=dict(depth=[2], out_channel=dict(space=dict(min=[384], max=[512], stride=64),
                                                 sample_strategy='stage_wise')),
            num_classes=80,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0))))
