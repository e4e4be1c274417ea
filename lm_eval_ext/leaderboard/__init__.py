"""Comparing runs: lm_eval's output folders in, tables with intervals and paired tests out."""
