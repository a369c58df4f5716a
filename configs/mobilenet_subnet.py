# AttentiveNAS-A0, one subnet of the mobile supernet, as an ordinary network.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/mobilenet_subnet.py
# trains it alone, from the supernet's weights; see retinanet_r18_subnet.py.
_base_ = './mobilenet_supnet.py'

model = dict(
    # The weights are sliced out of the supernet's while the model is initialised.
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/mobilenet_supnet/epoch_360.pth}}'),
    backbone=dict(
        out_channel=[16, 16, 24, 32, 64, 112, 192, 216],
        depth=[1, 1, 3, 3, 3, 3, 3, 1],
        kernel_size=[3, 3, 3, 3, 3, 3, 3, 3],
        expand_ratio=[1, 1, 4, 4, 4, 4, 6, 6]),
    # The width of the features is six times that of the last stage.
    head=dict(in_channels=1296, hidden=dict(out_channel=[1792])))

# Its image size is 192.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=192, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=219, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=192),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=360, val_interval=10)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = []  # those of the base are for supernets
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
