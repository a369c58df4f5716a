"""The supervised families of MMDetection and MMPretrain: one config per config folder."""
from __future__ import annotations

# Folder -> config.
DETECTION = {
    'albu_example': 'mask-rcnn_r50_fpn_albu-1x_coco', 'atss': 'atss_r50_fpn_1x_coco',
    'autoassign': 'autoassign_r50-caffe_fpn_1x_coco', 'boxinst': 'boxinst_r50_fpn_ms-90k_coco',
    'carafe': 'faster-rcnn_r50_fpn-carafe_1x_coco', 'cascade_rcnn': 'cascade-rcnn_r50_fpn_1x_coco',
    'cascade_rpn': 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco',
    'centernet': 'centernet_r18_8xb16-crop512-140e_coco',
    'centripetalnet': 'centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco',
    'cityscapes': 'faster-rcnn_r50_fpn_1x_cityscapes', 'condinst': 'condinst_r50_fpn_ms-poly-90k_coco_instance',
    'conditional_detr': 'conditional-detr_r50_8xb2-50e_coco',
    'convnext': 'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco',
    'cornernet': 'cornernet_hourglass104_8xb6-210e-mstest_coco',
    'crowddet': 'crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman',
    'dab_detr': 'dab-detr_r50_8xb2-50e_coco', 'dcn': 'faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
    'dcnv2': 'faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco', 'ddod': 'ddod_r50_fpn_1x_coco',
    'ddq': 'ddq-detr-4scale_r50_8xb2-12e_coco', 'deepfashion': 'mask-rcnn_r50_fpn_15e_deepfashion',
    'deformable_detr': 'deformable-detr_r50_16xb2-50e_coco', 'detectors': 'detectors_htc-r50_1x_coco',
    'detr': 'detr_r18_8xb2-500e_coco', 'dino': 'dino-4scale_r50_8xb2-12e_coco',
    'double_heads': 'dh-faster-rcnn_r50_fpn_1x_coco', 'dyhead': 'atss_r50_fpn_dyhead_1x_coco',
    'dynamic_rcnn': 'dynamic-rcnn_r50_fpn_1x_coco', 'efficientnet': 'retinanet_effb3_fpn_8xb4-crop896-1x_coco',
    'empirical_attention': 'faster-rcnn_r50-attn1111_fpn_1x_coco', 'fast_rcnn': 'fast-rcnn_r50_fpn_1x_coco',
    'faster_rcnn': 'faster-rcnn_r50_fpn_1x_coco', 'fcos': 'fcos_r50-caffe_fpn_gn-head_1x_coco',
    'foveabox': 'fovea_r50_fpn_4xb4-1x_coco', 'fpg': 'retinanet_r50_fpg_crop640_50e_coco',
    'free_anchor': 'freeanchor_r50_fpn_1x_coco', 'fsaf': 'fsaf_r50_fpn_1x_coco',
    'gcnet': 'mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco', 'gfl': 'gfl_r50_fpn_1x_coco',
    'ghm': 'retinanet_r50_fpn_ghm-1x_coco', 'gn': 'mask-rcnn_r50_fpn_gn-all_2x_coco',
    'gn+ws': 'faster-rcnn_r50_fpn_gn-ws-all_1x_coco', 'grid_rcnn': 'grid-rcnn_r50_fpn_gn-head_1x_coco',
    'groie': 'faste-rcnn_r50_fpn_groie_1x_coco', 'guided_anchoring': 'ga-retinanet_r50_fpn_1x_coco',
    'hrnet': 'fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco', 'htc': 'htc_r50_fpn_1x_coco',
    'instaboost': 'mask-rcnn_r50_fpn_instaboost-4x_coco', 'lad': 'lad_r50-paa-r101_fpn_2xb8_coco_1x',
    'ld': 'ld_r18-gflv1-r101_fpn_1x_coco', 'legacy_1.x': 'retinanet_r50_fpn_1x_coco_v1',
    'libra_rcnn': 'libra-faster-rcnn_r50_fpn_1x_coco', 'lvis': 'mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1',
    'mask2former': 'mask2former_r50_8xb2-lsj-50e_coco', 'mask_rcnn': 'mask-rcnn_r50_fpn_1x_coco',
    'maskformer': 'maskformer_r50_ms-16xb1-75e_coco', 'misc': 'd2_retinanet_r50-caffe_fpn_ms-90k_coco',
    'ms_rcnn': 'ms-rcnn_r50_fpn_1x_coco', 'nas_fcos': 'nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco',
    'nas_fpn': 'retinanet_r50_nasfpn_crop640-50e_coco', 'objects365': 'retinanet_r50_fpn_1x_objects365v1',
    'openimages': 'ssd300_32xb8-36e_openimages', 'paa': 'paa_r50_fpn_1x_coco', 'pafpn': 'faster-rcnn_r50_pafpn_1x_coco',
    'panoptic_fpn': 'panoptic-fpn_r50_fpn_1x_coco', 'pascal_voc': 'ssd300_voc0712',
    'pisa': 'retinanet-r50_fpn_pisa_1x_coco', 'point_rend': 'point-rend_r50-caffe_fpn_ms-1x_coco',
    'pvt': 'retinanet_pvt-t_fpn_1x_coco', 'queryinst': 'queryinst_r50_fpn_1x_coco',
    'regnet': 'retinanet_regnetx-1.6GF_fpn_1x_coco', 'reppoints': 'reppoints-moment_r50_fpn_1x_coco',
    'res2net': 'faster-rcnn_res2net-101_fpn_2x_coco',
    'resnest': 'faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco',
    'resnet_strikes_back': 'retinanet_r50-rsb-pre_fpn_1x_coco', 'retinanet': 'retinanet_r50_fpn_1x_coco',
    'rpn': 'rpn_r50_fpn_1x_coco', 'rtmdet': 'rtmdet_tiny_8xb32-300e_coco', 'sabl': 'sabl-retinanet_r50_fpn_1x_coco',
    'scnet': 'scnet_r50_fpn_1x_coco', 'scratch': 'faster-rcnn_r50-scratch_fpn_gn-all_6x_coco',
    'seesaw_loss': 'mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1',
    'selfsup_pretrain': 'mask-rcnn_r50-swav-pre_fpn_1x_coco',
    'simple_copy_paste': 'mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_32xb2-ssj-90k_coco',
    'solo': 'solo_r50_fpn_1x_coco',
    'solov2': 'solov2_r50_fpn_1x_coco', 'sparse_rcnn': 'sparse-rcnn_r50_fpn_1x_coco', 'ssd': 'ssd300_coco',
    'strong_baselines': 'mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-50e_coco',
    'swin': 'retinanet_swin-t-p4-w7_fpn_1x_coco', 'timm_example': 'retinanet_timm-tv-resnet50_fpn_1x_coco',
    'tood': 'tood_r50_fpn_1x_coco', 'tridentnet': 'tridentnet_r50-caffe_1x_coco', 'vfnet': 'vfnet_r50_fpn_1x_coco',
    'wider_face': 'ssd300_8xb32-24e_widerface', 'yolact': 'yolact_r50_1xb8-55e_coco',
    'yolo': 'yolov3_d53_8xb8-320-273e_coco', 'yolof': 'yolof_r50-c5_8xb8-1x_coco', 'yolox': 'yolox_tiny_8xb8-300e_coco',
}
CLASSIFICATION = {
    'conformer': 'conformer-tiny-p16_8xb128_in1k', 'convmixer': 'convmixer-768-32_10xb64_in1k',
    'convnext': 'convnext-tiny_32xb128_in1k', 'convnext_v2': 'convnext-v2-atto_32xb32_in1k',
    'cspnet': 'cspresnet50_8xb32_in1k', 'csra': 'resnet101-csra_1xb16_voc07-448px', 'davit': 'davit-tiny_4xb256_in1k',
    'deit': 'deit-tiny_4xb256_in1k', 'deit3': 'deit3-small-p16_64xb64_in1k', 'densenet': 'densenet121_4xb256_in1k',
    'edgenext': 'edgenext-xxsmall_8xb256_in1k', 'efficientformer': 'efficientformer-l1_8xb128_in1k',
    'efficientnet': 'efficientnet-b0_8xb32_in1k', 'efficientnet_v2': 'efficientnetv2-b0_8xb32_in1k',
    'eva02': 'eva02-tiny-p14_in1k', 'hivit': 'hivit-tiny-p16_16xb64_in1k', 'hornet': 'hornet-tiny_8xb128_in1k',
    'hrnet': 'hrnet-w18_4xb32_in1k', 'inception_v3': 'inception-v3_8xb32_in1k', 'lenet': 'lenet5_mnist',
    'levit': 'levit-128s_8xb256_in1k', 'mlp_mixer': 'mlp-mixer-base-p16_64xb64_in1k',
    'mobilenet_v2': 'mobilenet-v2_8xb32_in1k', 'mobilenet_v3': 'mobilenet-v3-small_8xb128_in1k',
    'mobileone': 'mobileone-s0_8xb32_in1k', 'mobilevit': 'mobilevit-xxsmall_8xb128_in1k',
    'mvit': 'mvitv2-tiny_8xb256_in1k', 'poolformer': 'poolformer-s12_32xb128_in1k',
    'regnet': 'regnetx-400mf_8xb128_in1k',
    'replknet': '../_base_/models/replknet-31B_in1k', 'repmlp': 'repmlp-base_8xb64_in1k',
    'repvgg': 'repvgg-A0_8xb32_in1k', 'res2net': 'res2net50-w14-s8_8xb32_in1k', 'resnest': 'resnest50_32xb64_in1k',
    'resnet': 'resnet50_8xb32_in1k', 'resnext': 'resnext50-32x4d_8xb32_in1k', 'revvit': 'revvit-small_8xb256_in1k',
    'riformer': 'riformer-s12_8xb128_in1k', 'seresnet': 'seresnet50_8xb32_in1k',
    'shufflenet_v1': 'shufflenet-v1-1x_16xb64_in1k', 'shufflenet_v2': 'shufflenet-v2-1x_16xb64_in1k',
    'swin_transformer': 'swin-tiny_16xb64_in1k', 'swin_transformer_v2': 'swinv2-tiny-w8_16xb64_in1k-256px',
    't2t_vit': 't2t-vit-t-14_8xb64_in1k', 'tinyvit': 'tinyvit-5m_8xb256_in1k', 'tnt': 'tnt-s-p16_16xb64_in1k',
    'twins': 'twins-svt-small_8xb128_in1k', 'van': 'van-tiny_8xb128_in1k', 'vgg': 'vgg11bn_8xb32_in1k',
    'vig': 'vig-tiny_8xb128_in1k', 'vision_transformer': 'vit-base-p32_64xb64_in1k-384px',
    'wrn': 'wide-resnet50_8xb32_in1k', 'xcit': 'xcit-nano-12-p16_8xb128_in1k',
}
OUT_OF_SCOPE = {
    'mmdet': {
        'trackers': 'bytetrack, deepsort, mask2former_vis, masktrack_rcnn, ocsort, qdtrack, reid, sort, strongsort',
        'text-grounded': 'glip, grounding_dino, mm_grounding_dino', 'semi-supervised': 'soft_teacher',
        'no networks of their own': 'common, dsdl, v3det'},
    'mmpretrain': {
        'self-supervised': 'barlowtwins, beit, beitv2, byol, cae, densecl, dinov2, itpn, mae, maskfeat, mff, milan, '
                           'mixmim, mocov2, mocov3, simclr, simmim, simsiam, spark, swav, eva, sam',
        'with text': 'blip, blip2, chinese_clip, clip, flamingo, glip, llava, minigpt4, ofa, otter',
        'retrieval': 'arcface'},
}
FAMILIES = {f'mmdet/{folder}': name for folder, name in DETECTION.items()} | {
    f'mmpretrain/{folder}': name for folder, name in CLASSIFICATION.items()}
# Why a family does not pass, where what it raised does not say it well.
REASONS = {
    'mmdet/boxinst': 'it needs scikit-image, which is not installed with the rest',
    'mmdet/guided_anchoring': 'MMCV has its masked convolution for GPUs alone, and the check runs on the CPU',
    'mmdet/simple_copy_paste': 'its normalisations (MMSyncBN) cannot be built without a process group',
    'mmdet/strong_baselines': 'its normalisations (MMSyncBN) cannot be built without a process group',
    'mmdet/misc': 'its configs need Detectron2',
    'mmdet/carafe': 'MMCV has its upsampling for GPUs alone, and the check runs on the CPU',
    'mmpretrain/efficientformer': 'MMPretrain has no loss for this distilled network',
    'mmpretrain/levit': 'MMPretrain has no loss for this distilled network',
    'mmpretrain/shufflenet_v1': 'its channels are shuffled between 3 groups of 20, 40 and 80, of which no regular part '
                                'can be dropped',
    'mmpretrain/vig': 'its stem is always normalised by fixed statistics',
}
# These are checked first.
NAMED = tuple(f'mmdet/{folder}' for folder in [
    'retinanet', 'faster_rcnn', 'fcos', 'atss', 'gfl', 'tood', 'vfnet', 'paa', 'rtmdet', 'yolox', 'yolo', 'ssd',
    'centernet', 'fsaf', 'foveabox', 'reppoints', 'yolof', 'solov2', 'condinst', 'hrnet', 'regnet', 'res2net',
    'resnest', 'dcn', 'pvt'
]) + tuple(f'mmpretrain/{folder}' for folder in [
    'resnet', 'resnext', 'seresnet', 'regnet', 'mobilenet_v2', 'mobilenet_v3', 'efficientnet', 'efficientnet_v2',
    'densenet', 'inception_v3', 'vgg', 'repvgg', 'mobileone', 'convnext', 'convnext_v2', 'poolformer',
    'shufflenet_v2', 'cspnet', 'hrnet'
])
