"""The programs of the peers. `bench/launch.py` starts them."""
