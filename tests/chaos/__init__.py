"""Faults injected into real processes under load, and the checker's word on what clients saw."""
