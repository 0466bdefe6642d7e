"""Tester."""
