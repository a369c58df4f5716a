# The mobile supernet on ImageNet (data/imagenet), inputs of 192 to 288 pixels: 32 GPUs, 64 images each, 360 epochs.
#   mim train mmbignas configs/mobilenet_supnet.py --launcher slurm --gpus 32 --gpus-per-node 8 --partition PARTITION
# on 8 GPUs: --launcher pytorch --gpus 8, and --auto-scale-lr
_base_ = ['_base_/mobilenet_imagenet.py', '_base_/steps/test_supernet.py']

test_cfg = dict(image_size=[[192, 192], [224, 224], [256, 256], [288, 288]])
