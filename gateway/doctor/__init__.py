"""Diagnose any event stream on any server: `python -m gateway doctor URL`.

`listening` sends requests and records what arrives when; `examining` and `attempts` say which. All other modules are pure: observations
become findings, and findings a report.
"""
