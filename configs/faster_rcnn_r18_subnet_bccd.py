# The smallest subnet of the supernet on your own data as an ordinary network, trained from the supernet's weights:
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/faster_rcnn_r18_subnet_bccd.py
# or, with --cfg-options model.init_cfg=None, from scratch.
_base_ = './faster_rcnn_r18_supnet_bccd.py'

model = dict(
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/faster_rcnn_r18_supnet_bccd/epoch_24.pth}}'),
    backbone=dict(out_channel=[8, 8, 16, 32, 64], depth=[1, 1, 1, 1, 1]),
    neck=dict(in_channels=[8, 16, 32, 64], out_channel=[16, 16]),
    rpn_head=dict(in_channels=16, tower=dict(out_channel=[32])),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                  bbox_head=dict(in_channels=16, fcs=dict(out_channel=[64]))))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=24, val_interval=8)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = []  # those of the base are for supernets
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
