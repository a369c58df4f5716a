"""Handling a model as a supernet: applying subnets, calibrating them, cutting them out."""
from mmbignas.supernet.calibration import BNState, calibrate_bn
from mmbignas.supernet.checkpoint import Checkpoint, check_weights, file_hash, load_weights, read_checkpoint
from mmbignas.supernet.choice import NAMED_SUBNETS, SubnetChoice, parse_choice, parse_choices
from mmbignas.supernet.export import subnet_config, subnet_state_dict
from mmbignas.supernet.image_size import check_image_size, is_one_size, network_stride, read_image_sizes, read_size_list
from mmbignas.supernet.initializers import OverlapCheckpoint, SupernetCheckpoint
from mmbignas.supernet.model_config import model_config
from mmbignas.supernet.probe import image_channels, probe
from mmbignas.supernet.supernet import Searchable, Supernet, live_modules

__all__ = ['BNState', 'Checkpoint', 'NAMED_SUBNETS', 'OverlapCheckpoint', 'Searchable', 'SubnetChoice', 'Supernet',
           'SupernetCheckpoint', 'calibrate_bn', 'check_image_size', 'check_weights', 'file_hash', 'image_channels',
           'is_one_size', 'live_modules', 'load_weights', 'model_config', 'network_stride', 'parse_choice',
           'parse_choices', 'probe', 'read_checkpoint', 'read_image_sizes', 'read_size_list', 'subnet_config',
           'subnet_state_dict']
