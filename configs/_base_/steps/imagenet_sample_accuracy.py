# How good the subnets of a supernet are: each one is calibrated and evaluated. See retinanet_r18_sample_accuracy.py for
# what there is to choose and what comes out.
test_cfg = dict(
    type='mmbignas.SampleAccuracyLoop',
    subnet_count=2000,
    subnet_sample_mode='random',
    metric1='accuracy/top1',
    metric2='accuracy/top5',
    val_images=10000,  # a fixed choice of the 50,000, for a first ranking
    parallel='subnet')
