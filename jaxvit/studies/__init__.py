"""Studies: comparisons of many runs, declared as data, run by one command, reported beside published figures."""

from jaxvit.studies.study import Row, Study

__all__ = ["Row", "Study"]
