# What subnets of the demo's supernet cost, and how good they are.
_base_ = './shapes_supnet.py'

test_cfg = dict(_delete_=True, type='mmbignas.EvaluateSubnetLoop', subnets=['max', 'middle', 'min'],
                image_size=[128, 128])
