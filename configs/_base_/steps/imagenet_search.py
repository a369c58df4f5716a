# The best subnets of a supernet under constraints. See retinanet_r18_search.py for what there is to choose and what
# comes out.
test_cfg = dict(
    type='mmbignas.SubnetSearchLoop',
    subnet_count=500,
    objectives=['accuracy/top1', 'macs'],
    metric1='accuracy/top1',
    metric2='accuracy/top5',
    val_images=10000,  # a fixed choice of the 50,000
    parallel='subnet')
