"""Per operation of torch: which axes of its inputs have the same positions, and what the axes of its output are.

A rule is a function of a :class:`~mmbignas.elastic.tracer.Call` that unifies or freezes axes of the inputs and returns
the axes of the output, of several outputs a list of these; ``None`` stands for an output of which everything stays.
It is only asked where an input has channels. To add one, write into the file of its kind::

    @rule('aten::flip')
    def flip(call: Call) -> Axes:
        axes = call.axes(call['self'])
        call.freeze(*(axes[dim] for dim in call['dims']))
        return axes

Operations that torch tags as pointwise need no rule.
"""
from mmbignas.elastic.rules import elementwise, indexing, norms, products, reductions, spatial, views
from mmbignas.elastic.rules.elementwise import default_rule
from mmbignas.elastic.rules.registry import RULES, rule

__all__ = ['RULES', 'default_rule', 'elementwise', 'indexing', 'norms', 'products', 'reductions', 'rule', 'spatial',
           'views']
