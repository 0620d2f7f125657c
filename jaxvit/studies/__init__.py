"""Studies: comparisons of many runs, declared as data, run by one command, reported next to published figures."""

from jaxvit.studies.study import Row, Study

__all__ = ["Row", "Study"]
