"""Positions that a file carries: readers, the filter of bad fixes, the repair of clocks."""
