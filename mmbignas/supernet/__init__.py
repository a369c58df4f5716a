"""Handling a model as a supernet: applying subnets, cutting them out."""
from mmbignas.supernet.export import subnet_config, subnet_state_dict
from mmbignas.supernet.supernet import Searchable, Supernet, live_modules

__all__ = ['Searchable', 'Supernet', 'live_modules', 'subnet_config', 'subnet_state_dict']
