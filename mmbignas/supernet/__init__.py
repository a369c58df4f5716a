"""Handling a model as a supernet: applying subnets, calibrating them, cutting them out."""
from mmbignas.supernet.build import model_config
from mmbignas.supernet.calibration import BNState, calibrate_bn
from mmbignas.supernet.checkpoint import Checkpoint, check_weights, load_weights, read_checkpoint
from mmbignas.supernet.choice import NAMED_SUBNETS, SubnetChoice, parse_choice, parse_choices
from mmbignas.supernet.cut_out import subnet_config, subnet_state_dict
from mmbignas.supernet.initializers import OverlapCheckpoint, SupernetCheckpoint
from mmbignas.supernet.supernet import Searchable, Supernet, image_channels, live_modules, probe
from mmbignas.utils.files import file_hash

__all__ = ['BNState', 'Checkpoint', 'NAMED_SUBNETS', 'OverlapCheckpoint', 'Searchable', 'SubnetChoice', 'Supernet',
           'SupernetCheckpoint', 'calibrate_bn', 'check_weights', 'file_hash', 'image_channels', 'live_modules',
           'load_weights', 'model_config', 'parse_choice', 'parse_choices', 'probe', 'read_checkpoint', 'subnet_config',
           'subnet_state_dict']
