"""Reports for people: self-contained HTML with charts.

Read document and result_page for what every page is made of, page and head_map for that of profiles, charts, names,
words and tables for what is said, then comparison.
"""

from statesize.io.files import check_report_path
from statesize.report.page import write_report

__all__ = ["check_report_path", "write_report"]
