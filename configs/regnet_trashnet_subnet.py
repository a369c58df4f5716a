# The smallest subnet of the TrashNet supernet as an ordinary network, trained from the supernet's weights:
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/regnet_trashnet_subnet.py
# or, with --cfg-options model.init_cfg=None, from scratch.
_base_ = './regnet_trashnet_supnet.py'

model = dict(
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/regnet_trashnet_supnet/epoch_40.pth}}'),
    # Its image size is 48. The images of the pipeline, 64x64, are resized to it, as in the supernet; mean, std and all
    # else is the base's.
    data_preprocessor=dict(
        type='mmbignas.ResizedDataPreprocessor', preprocessor=dict(type='ClsDataPreprocessor'), image_size=[48, 48]),
    backbone=dict(out_channel=[16, 16, 32, 64, 128], depth=[1, 1, 1, 2, 1]),
    head=dict(in_channels=128))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=40, val_interval=10)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = []  # those of the base are for supernets
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
