# One subnet of the Faster R-CNN-R18 supernet as an ordinary network: numbers in place of the spaces, MMEngine's loops.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/faster_rcnn_r18_subnet.py
# trains it alone, from the supernet's weights; model.init_cfg=None (--cfg-options) does so from scratch.
#   mim test mmbignas configs/faster_rcnn_r18_subnet.py --checkpoint SUBNET.pth
# tests what was trained or exported; the supernet's checkpoint need not be there.
_base_ = './faster_rcnn_r18_supnet.py'

model = dict(
    # The weights are sliced out of the supernet's while the model is initialised.
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/faster_rcnn_r18_supnet/epoch_500.pth}}'),
    # The smallest one. For another, the widths that a module is given (in_channels) follow from those before it.
    backbone=dict(out_channel=[32, 48, 96, 192, 384], depth=[1, 1, 2, 2, 2]),
    neck=dict(in_channels=[48, 96, 192, 384], out_channel=[128, 128]),
    rpn_head=dict(in_channels=128, tower=dict(out_channel=[256])),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=128),
                  bbox_head=dict(in_channels=128, fcs=dict(out_channel=[384]))))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=500, val_interval=10)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = []  # those of the base are for supernets
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
