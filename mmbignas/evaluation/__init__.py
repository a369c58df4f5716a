"""Val and test loops, BN calibration, ledgers and results."""
from mmbignas.evaluation.bn_calibration_hook import BNCalibrationHook
from mmbignas.evaluation.evaluate_subnet_loop import EvaluateSubnetLoop
from mmbignas.evaluation.sample_accuracy_loop import SampleAccuracyLoop
from mmbignas.evaluation.sample_flops import SampleFlopsLoop
from mmbignas.evaluation.scorer import SubnetEval, SubnetScorer
from mmbignas.evaluation.subnet_search_loop import SubnetSearchLoop
from mmbignas.evaluation.subnet_val_loop import SubnetValLoop

__all__ = ['BNCalibrationHook', 'EvaluateSubnetLoop', 'SampleAccuracyLoop', 'SampleFlopsLoop', 'SubnetEval',
           'SubnetScorer', 'SubnetSearchLoop', 'SubnetValLoop']
