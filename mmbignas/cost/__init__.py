"""What subnets cost: operations and parameters by calculation, latency by measurement."""
from mmbignas.cost.cost_model import Call, Cost, CostModel, ModuleCost

__all__ = ['Call', 'Cost', 'CostModel', 'ModuleCost']
