# The best subnets of the Faster R-CNN-R18 supernet under constraints.
#   mim test mmbignas configs/faster_rcnn_r18_search.py --checkpoint CHECKPOINT
# In work_dirs/faster_rcnn_r18_search/search: the study (study.db; optuna-dashboard sqlite:///.../study.db shows it),
# with which the same command goes on after an interruption, and the results. More processes and machines, each started
# with this command, work on the same study if they are given the same storage.
_base_ = './faster_rcnn_r18_supnet.py'

test_cfg = dict(
    _delete_=True,
    type='mmbignas.SubnetSearchLoop',
    image_size=[768, 1344],  # a 16:9 image, scaled into 1333x800 and padded to multiples of 32; or a list of sizes
    subnet_count=300,
    constraints=dict(macs='150G'),  # params='10M', latency_ms=30 (with lut_path); [low, high]
    objectives=['coco/bbox_mAP', 'macs'],
    sampler='coarse_to_fine',  # nsga2, tpe, random, qmc, or dict(type='nsga2', population_size=50)
    predictor=dict(candidates=100, min_subnets=30),  # a regression proposes, evaluation decides; None: without
    storage=None,  # study.db; a file ending in .journal on a network file system; postgresql://user@host/name
    baseline_flops='153.07G',
    metric1='coco/bbox_mAP',
    metric2='coco/bbox_mAP_50',
    parallel='subnet')  # with several processes, each evaluates subnets of its own; images: all the same subnet
