# A RegNet that is narrow enough to train on a CPU, for images of 64x64 and smaller.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='mmbignas.BigRegNet',
        out_channel=dict(
            space=dict(min=[16, 16, 32, 64, 128], max=[16, 24, 48, 96, 192], stride=[8, 8, 8, 16, 32]),
            sample_strategy='stage_wise'),
        depth=dict(space=dict(min=[1, 1, 1, 2, 1], max=[1, 1, 2, 4, 2], stride=1), sample_strategy='stage_wise'),
        group_width=[8, 8, 8, 8, 8],
        strides=[2, 1, 2, 2, 2]),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmbignas.BigLinearClsHead',
        num_classes=6,
        in_channels=dict(space=dict(min=[128], max=[192])),  # a space, since the backbone's width changes
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
