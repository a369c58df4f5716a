# Fine-tuning of one subnet of the supernet, with its accuracy before and after.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/mobilenet_finetune_subnet.py
# For a network of these settings that was exported already: --cfg-options model.init_cfg=None
# load_from=FOLDER/checkpoint.pth; for any other take FOLDER/config.py as _base_.
# To learn from the largest subnet too: as in regnet_trashnet_finetune_subnet.py.
_base_ = './mobilenet_subnet.py'

train_cfg = dict(max_epochs=10, val_interval=1)

optim_wrapper = dict(optimizer=dict(lr=0.08))  # a tenth of the supernet's
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=10, by_epoch=True, convert_to_iter_based=True)]

custom_hooks = [
    # The supernet's BN statistics are a mixture of those of all subnets.
    dict(type='mmbignas.CalibrateFirstHook', num_images=2048),
    dict(type='mmbignas.ValidateFirstHook'),
]
default_hooks = dict(checkpoint=dict(interval=1))
