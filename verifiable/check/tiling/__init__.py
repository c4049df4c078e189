"""Tests of claims tile by tile.

rules     which pieces of its inputs an equation needs for a piece of its output
plan      which equations are evaluated in the tiles of which claim; `columns`: tiles of heads
evaluate  the tests, tile by tile
"""
