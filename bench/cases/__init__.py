"""What is measured, one file a case. A case starts nothing: it gets a running peer and returns figures.

`catalogue` lists them with the peers that take part.
"""
