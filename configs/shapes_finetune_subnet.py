# Fine-tuning of the smallest subnet of the demo's supernet, with its accuracy before and after.
_base_ = './shapes_supnet.py'

model = dict(
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint', checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/demo/epoch_16.pth}}'),
    backbone=dict(out_channel=[8, 8, 16, 32, 64], depth=[1, 1, 1, 1, 1]),
    neck=dict(in_channels=[16, 32, 64], out_channel=[32, 32]),
    bbox_head=dict(in_channels=32, cls_tower=dict(out_channel=[16])))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=4, val_interval=4)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = [
    dict(type='mmbignas.CalibrateFirstHook', num_images=400),
    dict(type='mmbignas.ValidateFirstHook'),
]

optim_wrapper = dict(optimizer=dict(lr=2e-4))  # a tenth of the supernet's
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=4, by_epoch=True, convert_to_iter_based=True)]
