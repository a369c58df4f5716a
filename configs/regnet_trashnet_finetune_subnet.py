# Fine-tuning of the smallest subnet of the TrashNet supernet, with its accuracy before and after.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/regnet_trashnet_finetune_subnet.py
_base_ = './regnet_trashnet_subnet.py'

train_cfg = dict(max_epochs=8, val_interval=1)
custom_hooks = [
    # The supernet's BN statistics are a mixture of those of all subnets.
    dict(type='mmbignas.CalibrateFirstHook', num_images=1024),
    dict(type='mmbignas.ValidateFirstHook'),
    # To learn from the largest subnet too:
    # dict(
    #     type='mmbignas.DistillHook',
    #     jobs=dict(soft=dict(mimic_name='head.fc', loss=dict(type='mmbignas.SoftLabelLoss'))),
    #     teacher=dict(config='{{fileDirname}}/regnet_trashnet_supnet.py', num_images=1024,
    #                  checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/regnet_trashnet_supnet/epoch_40.pth}}')),
]

optim_wrapper = dict(optimizer=dict(lr=2e-4))  # a tenth of the supernet's
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=8, by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(interval=1))
