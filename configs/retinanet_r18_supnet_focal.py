# The same supernet with MMDetection's usual RetinaNet losses: focal loss, L1, max-IoU assignment, 9 anchors.
_base_ = './retinanet_r18_supnet.py'

model = dict(
    bbox_head=dict(
        anchor_generator=dict(
            _delete_=True,
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128]),
        reg_decoded_bbox=False,
        loss_cls=dict(_delete_=True, type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(
            _delete_=True, type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
            ignore_iof_thr=-1)))
