"""Entries of a leaderboard: packed from runs, verified by anyone offline, published as pages.

An entry is a folder of data. Nothing in it is ever executed, and only
:mod:`cpt_bench.leaderboard.reproduce` needs torch.
"""
