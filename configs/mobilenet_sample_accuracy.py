# How good the subnets of the mobile supernet are: each one is calibrated and evaluated.
#   mim test mmbignas configs/mobilenet_sample_accuracy.py --checkpoint CHECKPOINT
# See retinanet_r18_sample_accuracy.py for what there is to choose and what comes out.
_base_ = './mobilenet_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleAccuracyLoop',
    image_size=[[192, 192], [224, 224], [256, 256], [288, 288]],
    subnet_count=2000,
    subnet_sample_mode='random',
    flops_range=['300M', '900M'],
    # Multiply-adds of AttentiveNAS-A5 and -A6.
    baseline_flops='491M',
    large_flops='709M',
    metric1='accuracy/top1',
    metric2='accuracy/top5',
    val_images=10000,  # a fixed choice of the 50,000, for a first ranking
    parallel='subnet')
