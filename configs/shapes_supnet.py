# The demo: a narrow RetinaNet-R18 supernet on 400 drawn images of 128x128 (tools/make_shapes.py).
_base_ = ['_base_/retinanet_r18_narrow_supernet.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmbignas'])
data_root = 'data/shapes/'
metainfo = dict(classes=('circle', 'square', 'triangle'))

# Small images hold small objects: anchors of 24 to 512 pixels.
model = dict(
    bbox_head=dict(num_classes=3, anchor_generator=dict(scales=[3, 4])))

pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/train.json',
        data_prefix=dict(img='train/'), filter_cfg=dict(filter_empty_gt=True), pipeline=pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/val.json',
        data_prefix=dict(img='val/'), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')
test_evaluator = val_evaluator

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop',
    max_epochs=16,
    val_interval=16,
    sample_subnet_num=4,
    sample_strategy=['max', 'min', 'random', 'random'])
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True)
test_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'middle', 'min'], calib_bn='both')
custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=400),
    dict(
        type='mmbignas.DistillHook',
        jobs=dict(cls=dict(mimic_name='bbox_head.retina_cls', loss=dict(type='mmbignas.DenseKLLoss'),
                           warm_up_iters=200))),
]

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05), clip_grad=dict(max_norm=35))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', begin=0, end=16, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=2), logger=dict(interval=10))
randomness = dict(seed=0)
