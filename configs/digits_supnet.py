# The demo of a classifier: a narrow mobile supernet on scikit-learn's digits (tools/make_digits.py), grey, 32x32.
_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmbignas'])
data_root = 'data/digits/'
image_sizes = [[24, 24], [32, 32]]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=10, mean=[128], std=[64]),
    backbone=dict(
        type='mmbignas.BigMobileNet',
        in_channels=1,
        out_channel=dict(
            space=dict(
                dynamic_range=[[8, 16], [8, 16], [16, 24], [16, 24], [24, 32], [32, 40], [40, 48], [48, 64]]),
            sample_strategy='stage_wise'),
        depth=dict(
            space=dict(dynamic_range=[[1], [1], [1, 2], [1, 2], [1, 2], [1], [1], [1]]), sample_strategy='stage_wise'),
        kernel_size=dict(
            space=dict(dynamic_range=[[3], [3], [3, 5], [3, 5], [3, 5], [3], [3], [3]]), sample_strategy='stage_wise'),
        expand_ratio=dict(
            space=dict(dynamic_range=[[1], [1], [2, 3], [2, 3], [2, 3], [2, 3], [3], [3]]),
            sample_strategy='stage_wise'),
        conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True),  # a learned step from 5x5 to 3x3 kernels
        final_expand_ratio=2,
        strides=[2, 1, 1, 2, 1, 1, 2, 1]),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmbignas.BigLinearClsHead',
        num_classes=10,
        in_channels=128,
        hidden=dict(depth=[1], out_channel=dict(space=dict(min=[64], max=[128], stride=64)))))

pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='RandomCrop', crop_size=32, padding=2),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='val', pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop',
    max_epochs=12,
    val_interval=12,
    sample_subnet_num=4,
    sample_strategy=['max', 'min', 'random', 'random'],
    image_size_list=image_sizes)
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True, image_size=image_sizes)
test_cfg = dict(
    type='mmbignas.SubnetValLoop', subnets=['max', 'middle', 'min'], calib_bn='both', image_size=image_sizes)
custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=1024),
    dict(
        type='mmbignas.DistillHook',
        jobs=dict(soft=dict(mimic_name='head.fc', loss=dict(type='mmbignas.SoftLabelLoss'))),
        same_pixels=False),
]

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05), clip_grad=dict(max_norm=5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', begin=0, end=12, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=2), logger=dict(interval=10))
randomness = dict(seed=0)
