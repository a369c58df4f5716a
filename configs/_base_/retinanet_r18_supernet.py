# RetinaNet-R18 as a supernet: every element is a list (fixed) or a space with the way it is drawn.
norm_cfg = dict(type='BN')
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='mmbignas.BigResNet',
        out_channel=dict(
            space=dict(min=[32, 48, 96, 192, 384], max=[64, 80, 160, 320, 640], stride=[16, 16, 32, 64, 128]),
            sample_strategy='stage_wise'),
        depth=dict(
            space=dict(min=[1, 1, 2, 2, 4], max=[1, 3, 4, 4, 6], stride=1),
            sample_strategy='stage_wise_depth'),
        kernel_size=[3, 3, 3, 3, 3],
        expand_ratio=[0.5, 1, 1, 1, 1],
        strides=[2, 1, 2, 2, 2],
        out_indices=[1, 2, 3],
        deep_stem=True,
        norm_cfg=norm_cfg),
    neck=dict(
        type='mmbignas.BigFPN',
        in_channels=[160, 320, 640],
        # One choice, but given as a space: the backbone's widths change, so the neck has to be dynamic too.
        out_channel=dict(space=dict(min=[128, 128], max=[128, 128]), sample_strategy='net_wise'),
        kernel_size=[1, 3],
        num_outs=5,
        add_extra_convs='on_output',
        norm_cfg=norm_cfg),
    bbox_head=dict(
        type='mmbignas.BigRetinaHead',
        num_classes=80,
        in_channels=128,
        cls_tower=dict(
            depth=[4],
            out_channel=dict(space=dict(min=[64], max=[128], stride=32), sample_strategy='stage_wise'),
            kernel_size=[3]),
        norm_cfg=norm_cfg,
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[6, 8], strides=[8, 16, 32, 64, 128]),
        reg_decoded_bbox=True,
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(type='ATSSAssigner', topk=18),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
