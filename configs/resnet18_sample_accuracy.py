# How good the subnets of the ResNet-18 supernet are: each one is calibrated and evaluated.
#   mim test mmbignas configs/resnet18_sample_accuracy.py --checkpoint CHECKPOINT
# See retinanet_r18_sample_accuracy.py for what there is to choose and what comes out.
_base_ = './resnet18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleAccuracyLoop',
    image_size=[224, 224],
    subnet_count=2000,
    subnet_sample_mode='random',
    flops_range=['1G', '3.7G'],
    # Multiply-adds of the usual ResNet-18 and ResNet-34.
    baseline_flops='1.81G',
    large_flops='3.66G',
    metric1='accuracy/top1',
    metric2='accuracy/top5',
    val_images=10000,  # a fixed choice of the 50,000, for a first ranking
    parallel='subnet')
