"""Generators of what is written from declarations: types of both clients, and pages of the docs."""
