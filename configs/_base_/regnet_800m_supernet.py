# RegNetX-800M as a supernet: widths and depths around those of arXiv 2003.13678, table 6.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='mmbignas.BigRegNet',
        out_channel=dict(
            space=dict(min=[32, 48, 96, 224, 576], max=[32, 80, 160, 320, 768], stride=[16, 16, 32, 32, 32]),
            sample_strategy='stage_wise'),
        depth=dict(space=dict(min=[1, 1, 2, 5, 4], max=[1, 1, 4, 9, 6], stride=1), sample_strategy='stage_wise'),
        group_width=[16, 16, 16, 16, 16]),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmbignas.BigLinearClsHead',
        num_classes=1000,
        in_channels=dict(space=dict(min=[576], max=[768])),  # a space, since the backbone's width changes
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5)))
