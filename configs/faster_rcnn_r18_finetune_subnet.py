# Fine-tuning of one subnet of the Faster R-CNN-R18 supernet, with its accuracy before and after.
#   SUPERNET_CHECKPOINT=CHECKPOINT mim train mmbignas configs/faster_rcnn_r18_finetune_subnet.py
# For a network of these settings that was exported already: --cfg-options model.init_cfg=None
# load_from=FOLDER/checkpoint.pth; for any other take FOLDER/config.py as _base_.
_base_ = './faster_rcnn_r18_subnet.py'

train_cfg = dict(max_epochs=12, val_interval=1)

# A tenth of the supernet's learning rate; --auto-scale-lr multiplies by (images per step) / 8.
optim_wrapper = dict(optimizer=dict(lr=0.0005))
param_scheduler = [dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)]

custom_hooks = [
    # The supernet's BN statistics are a mixture of those of all subnets.
    dict(type='mmbignas.CalibrateFirstHook', num_images=2048),
    dict(type='mmbignas.ValidateFirstHook'),
]
default_hooks = dict(checkpoint=dict(interval=1))
