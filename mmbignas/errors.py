"""The errors that are raised on purpose."""

__all__ = ['ConfigError', 'DependencyError', 'MismatchError']


class ConfigError(ValueError):
    """A setting that cannot be used. The message names the setting, its value and what is allowed.

    The command-line tools print the message as one line, without a traceback.

    Args:
        message: What is wrong and what would be right.
    """

    # A constructor of one string: some releases of MMEngine re-raise what a constructor raised as type(error)(text).
    def __init__(self, message: str) -> None:
        super().__init__(message)


class DependencyError(RuntimeError):
    """A package that is missing, broken, or of a version that does not fit.

    Not an :class:`ImportError`: MMEngine swallows those when it resolves ``type='mmbignas.X'`` and then only says
    that X is not registered.
    """


class MismatchError(RuntimeError):
    """What was written computes something else than what it was made from; it is not kept.

    The command-line tools print the message as one line, without a traceback.
    """
