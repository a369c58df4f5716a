# RegNetX-800M, one subnet of its supernet, as an ordinary network.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/regnet_800m_subnet.py
# trains it alone, from the supernet's weights; see retinanet_r18_subnet.py.
_base_ = './regnet_800m_supnet.py'

model = dict(
    # The weights are sliced out of the supernet's while the model is initialised.
    init_cfg=dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/regnet_800m_supnet/epoch_300.pth}}'),
    backbone=dict(out_channel=[32, 64, 128, 288, 672], depth=[1, 1, 3, 7, 5]),
    head=dict(in_channels=672))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')
custom_hooks = []  # those of the base are for supernets
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
