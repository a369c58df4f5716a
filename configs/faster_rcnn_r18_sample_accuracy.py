# How good the subnets of the Faster R-CNN-R18 supernet are: each one is calibrated and evaluated.
#   mim test mmbignas configs/faster_rcnn_r18_sample_accuracy.py --checkpoint CHECKPOINT
# In work_dirs/faster_rcnn_r18_sample_accuracy/sample_accuracy: one line per subnet as soon as it is finished (the same
# command goes on after an interruption), the ten best near the baseline, the Pareto front, pictures, and a page to
# choose from.
_base_ = './faster_rcnn_r18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleAccuracyLoop',
    image_size=[768, 1344],  # a 16:9 image, scaled into 1333x800 and padded to multiples of 32; or a list of sizes
    subnet_count=2000,
    subnet_sample_mode='random',  # uniform, traverse
    flops_range=['90G', '180G'],
    # Multiply-adds of the same detector with the usual ResNet-18 and ResNet-34.
    baseline_flops='153.07G',
    large_flops='191.12G',
    metric1='coco/bbox_mAP',
    metric2='coco/bbox_mAP_50',
    val_images=None,  # a number: a first ranking on so many images, a fixed choice
    sample_with_finetune=False,  # dict(max_iters=20): train each subnet so long first, from the supernet's weights
    parallel='subnet')  # with several processes, each evaluates subnets of its own; images: all the same subnet
