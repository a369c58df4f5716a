# Faster R-CNN-R18 supernet on COCO 2017: 8 images per GPU, 500 epochs, input 1333x800.
#   mim train mmbignas configs/faster_rcnn_r18_supnet.py --launcher pytorch --gpus 8
_base_ = ['_base_/faster_rcnn_r18_supernet.py', 'mmdet::_base_/datasets/coco_detection.py',
          'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmbignas'])

train_dataloader = dict(batch_size=8, num_workers=8)
val_dataloader = dict(batch_size=8, num_workers=8)
test_dataloader = val_dataloader

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop',
    max_epochs=500,
    val_interval=10,
    sample_subnet_num=4,
    sample_strategy=['max', 'min', 'random', 'random'],
    valid_before_train=False)
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True)
test_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn='both')

custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=2048),
    dict(type='mmbignas.RegularizeLargestHook'),
]

# 0.000625 per image; --auto-scale-lr multiplies by (images per step) / 8.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=1e-4))
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', begin=0, end=500, by_epoch=True, milestones=[350, 450], gamma=0.1),
]
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3, save_best='min_calib/coco/bbox_mAP', rule='greater'))
