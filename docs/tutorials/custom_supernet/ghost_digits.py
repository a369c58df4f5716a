"""A GhostNet supernet on folders of grey 32x32 images of digits: data/digits/{train,val}/CLASS/*.png."""
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(imports=['mmbignas', 'ghost_net'])

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=10, mean=[128], std=[64]),
    backbone=dict(
        type='GhostNet',
        depth=dict(space=dict(min=[1, 1, 1], max=[2, 3, 2], stride=1), sample_strategy='stage_wise_depth'),
        out_channel=dict(space=dict(min=[16, 24, 40], max=[24, 48, 80], stride=[8, 8, 8])),
        kernel_size=dict(space=dict(min=[3, 3, 3], max=[5, 5, 3], stride=2), sample_strategy='block_wise'),
        expand_ratio=[2, 2, 2]),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmbignas.BigLinearClsHead', num_classes=10, in_channels=dict(space=dict(min=[40], max=[80])),
        loss=dict(type='CrossEntropyLoss')))

pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='data/digits', data_prefix='train', pipeline=pipeline))
val_dataloader = dict(
    batch_size=64, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='data/digits', data_prefix='val', pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop', max_epochs=8, val_interval=8, sample_subnet_num=4,
    sample_strategy=['max', 'min', 'random', 'random'])
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True)
test_cfg = dict(type='mmbignas.EvaluateSubnetLoop', subnets=['max', 'middle', 'min'], image_size=[32, 32])
custom_hooks = [dict(type='mmbignas.BNCalibrationHook', num_images=256)]
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=8, by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(logger=dict(interval=10))
randomness = dict(seed=0)
