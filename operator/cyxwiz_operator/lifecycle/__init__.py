"""The life of a TrainingJob as pure functions: what its status should say, given what is true now.

`review` follows a job that exists; `bound` and `queued` say what the scheduler found. None of them does anything.
"""

from .change import Note, StatusChange
from .dry_run import answered
from .leaving import told_to_yield
from .placement import bound, queued, without_weights
from .reserved import cannot_reserve, review_reservation
from .retry import backing_off_nodes
from .review import review

__all__ = [
    "Note",
    "StatusChange",
    "answered",
    "backing_off_nodes",
    "bound",
    "cannot_reserve",
    "queued",
    "review",
    "review_reservation",
    "told_to_yield",
    "without_weights",
]
