# The test of a supernet: the largest and the smallest subnet, without and with BN calibration.
test_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn='both')
