# ResNet-18 as a supernet: the widths of the detector's backbone, depths around 2 2 2 2.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='mmbignas.BigResNet',
        out_channel=dict(
            space=dict(min=[32, 48, 96, 192, 384], max=[64, 80, 160, 320, 640], stride=[16, 16, 32, 64, 128]),
            sample_strategy='stage_wise'),
        depth=dict(
            space=dict(min=[1, 1, 1, 1, 1], max=[1, 3, 4, 4, 3], stride=1),
            sample_strategy='stage_wise_depth'),
        expand_ratio=[0.5, 1, 1, 1, 1],
        deep_stem=True,
        out_indices=[3]),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmbignas.BigLinearClsHead',
        num_classes=1000,
        in_channels=dict(space=dict(min=[384], max=[640])),  # a space, since the backbone's width changes
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5)))
