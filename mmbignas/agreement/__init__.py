"""Whether data, model and metrics of a run agree, before anything slow."""
from mmbignas.agreement.agreement_hook import AgreementHook, agreement_of

__all__ = ['AgreementHook', 'agreement_of']
