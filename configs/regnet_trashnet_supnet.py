# A classification supernet on your own folders of images, train/CLASS/*.jpg and test/CLASS/*.jpg. The root and the
# number of classes are the only edits.
data_root = '{{$TRASHNET_ROOT:data/trashnet/}}'
num_classes = 6
# The example is TrashNet (2,521 photographs of 64x64), with a RegNet that is narrow enough to train on a CPU. The image
# size is one more dimension of the space.
_base_ = ['_base_/regnet_narrow_supernet.py', 'mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmbignas'])
image_sizes = [[48, 48], [64, 64]]

model = dict(data_preprocessor=dict(num_classes=num_classes), head=dict(num_classes=num_classes))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.4, 1.0), backend='cv2'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='test', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop',
    max_epochs=40,
    val_interval=10,
    sample_subnet_num=4,
    sample_strategy=['max', 'min', 'random', 'random'],
    image_size_list=image_sizes)
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True, image_size=image_sizes)
test_cfg = dict(
    type='mmbignas.SubnetValLoop', subnets=['max', 'middle', 'min'], calib_bn='both', image_size=image_sizes)
custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=1024),
    # All subnets learn from the labels, and from the probabilities of the largest, at 64x64. By the paper they learn
    # from these alone (replaces='loss', as in regnet_800m_supnet.py), for which this training is too short.
    dict(
        type='mmbignas.DistillHook',
        jobs=dict(soft=dict(mimic_name='head.fc', loss=dict(type='mmbignas.SoftLabelLoss'))),
        same_pixels=False),
    dict(type='mmbignas.RegularizeLargestHook'),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', begin=0, end=40, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=2), logger=dict(interval=10))
