"""Loops: what is trained and evaluated in which order."""
from mmbignas.engine.loops.evaluate_subnet_loop import EvaluateSubnetLoop
from mmbignas.engine.loops.sample_accuracy_loop import SampleAccuracyLoop
from mmbignas.engine.loops.sample_flops_loop import SampleFlopsLoop
from mmbignas.engine.loops.sandwich_train_loop import SandwichIterTrainLoop, SandwichLoop, SandwichTrainLoop
from mmbignas.engine.loops.subnet_loop import SubnetEval
from mmbignas.engine.loops.subnet_search_loop import SubnetSearchLoop
from mmbignas.engine.loops.subnet_val_loop import SubnetValLoop

__all__ = ['EvaluateSubnetLoop', 'SampleAccuracyLoop', 'SampleFlopsLoop', 'SandwichIterTrainLoop', 'SandwichLoop',
           'SandwichTrainLoop', 'SubnetEval', 'SubnetSearchLoop', 'SubnetValLoop']
