# A supernet on your own data in COCO format. The root and the classes are the only edits:
data_root = '{{$BCCD_ROOT:data/bccd/}}'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
# The example is the blood cell data set BCCD (292 training and 72 test images of 320x240), with a supernet that is
# narrow enough to train on a CPU. The largest subnet is a ResNet-18 with a quarter of the usual width.
_base_ = ['_base_/faster_rcnn_r18_narrow_supernet.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmbignas'])

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[4])),  # platelets are 18 pixels wide
    roi_head=dict(bbox_head=dict(num_classes=len(metainfo['classes']))))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/train.json',
        data_prefix=dict(img='images/'), filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/test.json',
        data_prefix=dict(img='images/'), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + '/annotations/test.json', metric='bbox')
test_evaluator = val_evaluator

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop',
    max_epochs=24,
    val_interval=8,
    sample_subnet_num=4,
    sample_strategy=['max', 'min', 'random', 'random'])
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True)
test_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'middle', 'min'], calib_bn='both')
custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=292),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=35))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', begin=0, end=24, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=8, max_keep_ckpts=2), logger=dict(interval=10))
