"""Reports for people: self-contained HTML with charts."""

from statesize.report.page import check_report_path, write_report

__all__ = ["check_report_path", "write_report"]
