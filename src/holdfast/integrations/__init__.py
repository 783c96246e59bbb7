"""Holdfast inside other libraries' training loops; one file for each. Nothing else of Holdfast imports them."""
