# The smallest subnet of the supernet on your own data as an ordinary network, trained from the supernet's weights:
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/retinanet_r18_subnet_bccd.py
# or, with --cfg-options model.init_cfg=None, from scratch.
_base_ = './retinanet_r18_supnet_bccd.py'

model = dict(
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/retinanet_r18_supnet_bccd/epoch_40.pth}}'),
    backbone=dict(out_channel=[8, 8, 16, 32, 64], depth=[1, 1, 1, 1, 1]),
    neck=dict(in_channels=[16, 32, 64], out_channel=[32, 32]),
    bbox_head=dict(in_channels=32, cls_tower=dict(out_channel=[16])))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=40, val_interval=10)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = []  # those of the base are for supernets
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
