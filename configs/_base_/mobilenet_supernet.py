# The mobile space of AttentiveNAS (arXiv 2011.09011, table 5), which is BigNAS' with a few choices more.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='mmbignas.BigMobileNet',
        out_channel=dict(
            space=dict(
                dynamic_range=[[16, 24], [16, 24], [24, 32], [32, 40], [64, 72], [112, 120, 128], [192, 200, 208, 216],
                               [216, 224]]),
            sample_strategy='stage_wise'),
        depth=dict(
            space=dict(
                dynamic_range=[[1], [1, 2], [3, 4, 5], [3, 4, 5, 6], [3, 4, 5, 6], [3, 4, 5, 6, 7, 8],
                               [3, 4, 5, 6, 7, 8], [1, 2]]),
            sample_strategy='stage_wise'),
        kernel_size=dict(
            space=dict(dynamic_range=[[3], [3, 5], [3, 5], [3, 5], [3, 5], [3, 5], [3, 5], [3, 5]]),
            sample_strategy='stage_wise'),
        expand_ratio=dict(
            space=dict(dynamic_range=[[1], [1], [4, 5, 6], [4, 5, 6], [4, 5, 6], [4, 5, 6], [6], [6]]),
            sample_strategy='stage_wise'),
        # conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True) learns the step from 5x5 to 3x3 kernels.
        drop_path_rate=0.2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmbignas.BigLinearClsHead',
        num_classes=1000,
        in_channels=1344,
        hidden=dict(depth=[1], out_channel=dict(space=dict(min=[1792], max=[1984], stride=192))),
        dropout=0.2,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5)))
