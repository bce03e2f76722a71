"""The programs of the peers, and how each is started: see `launch`."""
