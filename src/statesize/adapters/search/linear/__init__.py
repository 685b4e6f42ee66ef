"""Linear mixing inside a module, and its T by impulses.

Read `channels` (heads and channels), `search` (whether a module is linear between two tensors), `preferred`
(which of several pairs T maps to each other), `parts` (the search), `layer` (T), `kept` (where T keeps more than
is said of it); `declared` checks a T that a layer declares.
"""
