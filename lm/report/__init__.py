"""The report of a study: `write(study_dir)` makes figures/ and one self-contained report.html."""

from lm.report.page import write

__all__ = ["write"]
