"""Handling a model as a supernet: applying subnets, calibrating them, cutting them out."""
from mmbignas.supernet.calibration import BNState, calibrate_bn
from mmbignas.supernet.choice import NAMED_SUBNETS, SubnetChoice, parse_choices
from mmbignas.supernet.export import subnet_config, subnet_state_dict
from mmbignas.supernet.probe import image_channels, probe
from mmbignas.supernet.supernet import Searchable, Supernet, live_modules

__all__ = ['BNState', 'NAMED_SUBNETS', 'Searchable', 'SubnetChoice', 'Supernet', 'calibrate_bn', 'image_channels',
           'live_modules', 'parse_choices', 'probe', 'subnet_config', 'subnet_state_dict']
