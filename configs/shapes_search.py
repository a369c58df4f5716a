# The best subnets of the demo's supernet.
_base_ = './shapes_supnet.py'

test_cfg = dict(_delete_=True, type='mmbignas.SubnetSearchLoop', image_size=[128, 128], subnet_count=60,
                constraints=dict(macs='55M'), metric1='coco/bbox_mAP', metric2='coco/bbox_mAP_50')
