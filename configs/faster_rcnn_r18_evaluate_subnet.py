# What subnets of the Faster R-CNN-R18 supernet cost, and how good they are without and with BN calibration.
#   mim test mmbignas configs/faster_rcnn_r18_evaluate_subnet.py --checkpoint CHECKPOINT
# of other subnets, one of them in a file:
#   ... --cfg-options "test_cfg.subnets=['max','my.yaml']"
# A table at the end, and evaluation.json in the run's folder.
_base_ = './faster_rcnn_r18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.EvaluateSubnetLoop',
    subnets=[
        'max',
        'min',
        dict(
            name='r18_narrow',
            subnet_settings={
                'backbone': dict(out_channel=[32, 48, 96, 192, 384], depth=[1, 1, 2, 2, 2]),
                'neck': dict(out_channel=[256, 256]),
                'roi_head.bbox_head.fcs': dict(out_channel=[384])}),
        dict(
            name='r18_middle',
            subnet_settings={
                'backbone': dict(out_channel=[48, 64, 128, 256, 512], depth=[1, 2, 3, 3, 3]),
                'neck': dict(out_channel=[256, 256]),
                'roi_head.bbox_head.fcs': dict(out_channel=[448])})],
    calib_bn='both',
    image_size=[768, 1344],  # a 16:9 image, scaled into 1333x800 and padded to multiples of 32
    latency=dict(backend='torch', device='cpu', threads=1, batch_size=1),  # None: not measured
    metric1='coco/bbox_mAP')
