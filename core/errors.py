"""The one error tree of the framework.

::

    AQFError
    ├── ConfigurationError          settings that contradict each other or are missing
    ├── DataError                   data that is not what it must be
    │   ├── MissingDataError        a data set, symbol, field or bar that is not there
    │   ├── LookAheadError          a value that would use the future
    │   ├── ShapeError              arrays of the wrong shape, width or dtype
    │   ├── ExpressionError         a feature expression that cannot be accepted
    │   └── SnapshotError           a stored feature matrix that is not what was asked for
    ├── StoreError                  the database answered no
    │   ├── StoreUnavailableError   the database cannot be reached, started or written
    │   └── StoreConflictError      the row is there already, or may not be changed
    ├── ChatModelError              a language model failed or answered nonsense
    ├── BrokerError                 a broker answered what cannot be used
    │   ├── BrokerUnavailableError  a broker cannot be reached: it surely did not get what was sent
    │   └── BrokerOutcomeUnknownError  a broker may have got what was sent, and did not answer
    ├── BudgetExceeded              the budget of a run is used up; carries the partial report
    └── ToolError                   the only errors that a planning model gets to see
        ├── ToolRetry               wrong input: the text says what is allowed
        └── ToolFailed              right input, done, and failed: choose another way

A business "no" (a feature that is not promoted, an order that is refused) is a value, never an error.
"""

from typing import Any


class AQFError(Exception):
    """Base of every error this framework raises on purpose."""


class ConfigurationError(AQFError):
    """Settings are missing or contradict each other."""


class DataError(AQFError):
    """Data is not what it must be."""


class MissingDataError(DataError):
    """A data set, symbol, field or bar is not there."""


class LookAheadError(DataError):
    """A value would use what was not known at its time.

    Parameters
    ----------
    message : str
        What was expected, what came, what to do.
    position : int, optional
        Zero-based column where the trouble starts, if it is an expression.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class ShapeError(DataError):
    """An array has the wrong shape, width or dtype."""


class ExpressionError(DataError):
    """A feature expression cannot be accepted.

    Parameters
    ----------
    message : str
        What was expected, what came, what to do.
    position : int, optional
        Zero-based column in the expression where the trouble starts.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class SnapshotError(DataError):
    """A stored feature matrix is not what was asked for, or cannot be read as one.

    Parameters
    ----------
    message : str
        What was expected, what came, what to do.
    differs : tuple of str, optional
        What is not as expected: names of fields of the snapshot, or ``"content"``.
    """

    def __init__(self, message: str, differs: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differs = differs


class StoreError(AQFError):
    """The database answered no."""


class StoreUnavailableError(StoreError):
    """The database cannot be reached, started or written."""


class StoreConflictError(StoreError):
    """The row is there already, or may not be changed."""


class ChatModelError(AQFError):
    """A language model failed, or answered what cannot be used."""


class BrokerError(AQFError):
    """A broker answered what cannot be used."""


class BrokerUnavailableError(BrokerError):
    """A broker cannot be reached: it surely did not get what was sent."""


class BrokerOutcomeUnknownError(BrokerError):
    """A broker may have got what was sent, and did not answer: ask it by our own identity of the order."""


class BudgetExceeded(AQFError):
    """The budget of a run is used up.

    Parameters
    ----------
    message : str
        Which limit bound.
    report : object, optional
        The partial report of the run.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class ToolError(AQFError):
    """Base of what a tool may tell a planning model."""


class ToolRetry(ToolError):
    """The input was wrong; the text says what is allowed."""


class ToolFailed(ToolError):
    """The input was right, the work was done, and it failed."""
