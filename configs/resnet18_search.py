# The best subnets of the ResNet-18 supernet under constraints.
#   mim test mmbignas configs/resnet18_search.py --checkpoint CHECKPOINT
# See retinanet_r18_search.py for what there is to choose and what comes out.
_base_ = './resnet18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SubnetSearchLoop',
    image_size=[224, 224],
    subnet_count=500,
    constraints=dict(macs='2.1G'),
    objectives=['accuracy/top1', 'macs'],
    baseline_flops='1.81G',
    metric1='accuracy/top1',
    metric2='accuracy/top5',
    val_images=10000,  # a fixed choice of the 50,000
    parallel='subnet')
