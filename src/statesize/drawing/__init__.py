"""Curves as charts for notebooks and as figures for papers; the libraries are imported when one is drawn."""
