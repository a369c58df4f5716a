# ResNet-18 with a deep stem, one subnet of its supernet, as an ordinary network.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/resnet18_subnet.py
# trains it alone, from the supernet's weights; see retinanet_r18_subnet.py.
_base_ = './resnet18_supnet.py'

model = dict(
    # The weights are sliced out of the supernet's while the model is initialised.
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/resnet18_supnet/epoch_300.pth}}'),
    backbone=dict(out_channel=[64, 64, 128, 256, 512], depth=[1, 2, 2, 2, 2]),
    head=dict(in_channels=512))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = []  # those of the base are for supernets
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
