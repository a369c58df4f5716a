"""Search spaces and subnets as plain data; nothing here imports torch."""
from mmbignas.space.element import Element, parse_element
from mmbignas.space.genome import Gene, Genome
from mmbignas.space.module_space import ModuleSettings, ModuleSpace
from mmbignas.space.search_space import SearchSpace
from mmbignas.space.strategies import STRATEGIES, Strategy, parse_strategy
from mmbignas.space.subnet import IMAGE_SIZE, ImageSize, Subnet
from mmbignas.space.subnet_files import SUBNET_SUFFIXES, json_number, load_subnet, save_subnet

__all__ = ['Element', 'Gene', 'Genome', 'IMAGE_SIZE', 'ImageSize', 'ModuleSettings', 'ModuleSpace', 'STRATEGIES',
           'SUBNET_SUFFIXES', 'SearchSpace', 'Strategy', 'Subnet', 'json_number', 'load_subnet', 'parse_element',
           'parse_strategy', 'save_subnet']
