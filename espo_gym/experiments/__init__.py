"""Runs, comparisons and protocols: what is carried out, and the folders that it leaves behind."""
