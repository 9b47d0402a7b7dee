"""Figures as PNG bytes and HTML pages."""
