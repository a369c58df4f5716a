# Fine-tuning of the smallest subnet of the supernet on your own data, with its accuracy before and after.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/retinanet_r18_finetune_subnet_bccd.py
_base_ = './retinanet_r18_subnet_bccd.py'

train_cfg = dict(max_epochs=8, val_interval=1)
custom_hooks = [
    # The supernet's BN statistics are a mixture of those of all subnets.
    dict(type='mmbignas.CalibrateFirstHook', num_images=292),
    dict(type='mmbignas.ValidateFirstHook'),
    # To learn from the largest subnet too:
    # dict(
    #     type='mmbignas.DistillHook',
    #     jobs=dict(cls=dict(mimic_name='bbox_head.retina_cls', loss=dict(type='mmbignas.DenseKLLoss'))),
    #     teacher=dict(config='{{fileDirname}}/retinanet_r18_supnet_bccd.py', num_images=292,
    #                  checkpoint='{{$SUPERNET_CHECKPOINT:work_dirs/retinanet_r18_supnet_bccd/epoch_40.pth}}')),
]

optim_wrapper = dict(optimizer=dict(lr=2e-4))  # a tenth of the supernet's
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=8, by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(interval=1))
