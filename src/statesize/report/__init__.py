"""Reports for people: self-contained HTML with charts.

Read page and page_data for what is written, charts, words and tables for what is said, then comparison and diagnosis.
"""

from statesize.report.page import check_report_path, write_report

__all__ = ["check_report_path", "write_report"]
