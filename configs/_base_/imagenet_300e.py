# A classification supernet on ImageNet (data/imagenet), 224x224: 300 epochs of the sandwich rule with soft labels, 128
# images on each of 8 GPUs. The files in steps/ add the test.
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64.py', 'mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmbignas'])

train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128)
test_dataloader = val_dataloader

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop',
    max_epochs=300,
    val_interval=10,
    sample_subnet_num=4,
    sample_strategy=['max', 'min', 'random', 'random'])
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True)
custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=2048),
    # The largest subnet learns from the labels, the others from its probabilities alone.
    dict(
        type='mmbignas.DistillHook',
        jobs=dict(soft=dict(mimic_name='head.fc', loss=dict(type='mmbignas.SoftLabelLoss'), replaces='loss'))),
    dict(type='mmbignas.RegularizeLargestHook'),
]

# 0.1 per 256 images, as in AttentiveNAS: the gradients of four passes add up.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=5e-5, nesterov=True))
auto_scale_lr = dict(base_batch_size=1024)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=5, end=300, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3, save_best='min_calib/accuracy/top1', rule='greater'))
