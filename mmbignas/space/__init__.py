"""Search spaces and subnets as plain data; nothing here imports torch."""
from mmbignas.space.element import Element, parse_element
from mmbignas.space.search_space import ModuleSettings, ModuleSpace, SearchSpace, Subnet
from mmbignas.space.strategies import STRATEGIES, Strategy, parse_strategy

__all__ = ['Element', 'ModuleSettings', 'ModuleSpace', 'STRATEGIES', 'SearchSpace', 'Strategy', 'Subnet',
           'parse_element', 'parse_strategy']
