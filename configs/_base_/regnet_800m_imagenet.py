# All of the RegNet supernet but its test.
_base_ = ['regnet_800m_supernet.py', 'imagenet_300e.py']
