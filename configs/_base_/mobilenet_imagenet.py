# All of the mobile supernet but its test: ImageNet, inputs of 192 to 288 pixels. How subnets are trained and the decay
# of the learning rate are BigNAS' (arXiv 2003.11142, section 3); space, optimizer and length are AttentiveNAS'.
_base_ = ['mobilenet_supernet.py', 'mmpretrain::_base_/datasets/imagenet_bs64_autoaug.py',
          'mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmbignas'])

image_sizes = [[192, 192], [224, 224], [256, 256], [288, 288]]
bgr_mean = [103.53, 116.28, 123.675]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=288, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='AutoAugment',
        policies='imagenet',
        hparams=dict(pad_val=[round(value) for value in bgr_mean], interpolation='bicubic')),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=328, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=288),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(
    type='mmbignas.SandwichTrainLoop',
    max_epochs=360,
    val_interval=10,
    sample_subnet_num=4,
    # 'best_up' in place of 'random': AttentiveNAS (arXiv 2011.09011).
    sample_strategy=['max', 'min', 'random', 'random'],
    # Each pass sees the same crops, resized: the largest subnet at 288, the smallest at 192, the others at any size.
    image_size_list=image_sizes,
    share_interpolation=False,
    interpolation_type='bicubic')
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True, image_size=image_sizes)
custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=2048),
    # The largest subnet learns from the labels, the others from its probabilities alone, which are those at its own
    # image size. mmbignas.AlphaDivergenceLoss in place of SoftLabelLoss: AlphaNet (arXiv 2102.07954).
    dict(
        type='mmbignas.DistillHook',
        jobs=dict(soft=dict(mimic_name='head.fc', loss=dict(type='mmbignas.SoftLabelLoss'), replaces='loss')),
        same_pixels=False),
    # Weight decay, dropout and drop-path for the largest subnet alone.
    dict(type='mmbignas.RegularizeLargestHook'),
]

# 0.1 per 256 images, as in AttentiveNAS: the gradients of four passes add up.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.8, momentum=0.9, weight_decay=1e-5, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),
    clip_grad=dict(type='value', clip_value=1.0))
auto_scale_lr = dict(base_batch_size=2048)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True, convert_to_iter_based=True),
    # Exponential decay, 0.97 every 2.4 epochs, to 5 % of the initial rate, which then stays.
    dict(type='ExponentialLR', gamma=0.05 ** (1 / 236), begin=5, end=242, by_epoch=True),
]
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3, save_best='min_calib/accuracy/top1', rule='greater'))
