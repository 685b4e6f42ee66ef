"""Reports for people: self-contained HTML with charts."""

from statesize.report.html import check_report_path, write_report

__all__ = ["check_report_path", "write_report"]
