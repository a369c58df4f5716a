# All of the ResNet-18 supernet but its test.
_base_ = ['resnet18_supernet.py', 'imagenet_300e.py']

optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
