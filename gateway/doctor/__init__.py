"""Judges any event stream on any server: `python -m gateway doctor URL`.

`listening` asks and notes what came when; all the rest is pure: from such observations to findings, and from findings to a report.
"""
