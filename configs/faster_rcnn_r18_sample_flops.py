# What the subnets of the Faster R-CNN-R18 supernet cost, before any training; the data set need not be there.
#   python tools/sample_flops.py configs/faster_rcnn_r18_sample_flops.py
# needs no checkpoint. As a test, of any checkpoint:
#   mim test mmbignas configs/faster_rcnn_r18_sample_flops.py --checkpoint CHECKPOINT
_base_ = './faster_rcnn_r18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SampleFlopsLoop',
    image_size=[768, 1344],  # a 16:9 image, scaled into 1333x800 and padded to multiples of 32
    subnet_count=10000,
    subnet_sample_mode='random',
    # Multiply-adds of the same detector with the usual ResNet-18 and ResNet-34.
    baseline_flops='153.07G',
    large_flops='191.12G')
custom_hooks = []  # BN calibration would look for the data
