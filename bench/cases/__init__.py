"""The cases, one file each. A case starts no server: it gets a running peer and returns figures.

`catalogue` lists them with the peers that take part.
"""
