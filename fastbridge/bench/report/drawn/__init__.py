"""Drawn."""
