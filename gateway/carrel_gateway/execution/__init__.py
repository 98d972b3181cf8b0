"""Execution of cells: sent at most once, recorded before they are acknowledged."""
