# What the subnets of a supernet cost, before any training; the data set need not be there.
test_cfg = dict(type='mmbignas.SampleFlopsLoop', subnet_count=10000, subnet_sample_mode='random')
