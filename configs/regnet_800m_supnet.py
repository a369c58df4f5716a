# RegNetX-800M supernet on ImageNet (data/imagenet): 8 GPUs, 128 images each, 300 epochs, input 224x224.
#   mim train mmbignas configs/regnet_800m_supnet.py --launcher pytorch --gpus 8
_base_ = ['_base_/regnet_800m_imagenet.py', '_base_/steps/test_supernet.py']
