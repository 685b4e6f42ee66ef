"""Results for people: tables, charts and self-contained pages of HTML.

Read table, then result_page for what every page is made of, then words, comparison, page and head_map.
"""
