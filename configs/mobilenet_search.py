# The best subnets of the mobile supernet under constraints.
#   mim test mmbignas configs/mobilenet_search.py --checkpoint CHECKPOINT
# See retinanet_r18_search.py for what there is to choose and what comes out.
_base_ = './mobilenet_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SubnetSearchLoop',
    image_size=[[192, 192], [224, 224], [256, 256], [288, 288]],
    subnet_count=500,
    constraints=dict(macs='500M'),
    objectives=['accuracy/top1', 'macs'],
    baseline_flops='491M',
    metric1='accuracy/top1',
    metric2='accuracy/top5',
    val_images=10000,  # a fixed choice of the 50,000
    parallel='subnet')
