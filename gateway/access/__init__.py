"""Admission of a request: authentication, authorization, limits and expiry."""
