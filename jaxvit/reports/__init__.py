"""Reports over finished and unfinished runs, from their files alone: one page, its Markdown, its tables as CSV."""

from jaxvit.reports.report import write_report

__all__ = ["write_report"]
