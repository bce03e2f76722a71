"""The checks of `tidings check`, one file for each kind of dependency.

- `outcome`        the result of one check, with advice
- `configuration`  contradictory settings, files that settings name
- `machine`        ports, file descriptors, the accept queue
- `nats`           servers, login, permissions; `jetstream` the store and its streams
- `store`          Redis: version, permissions, memory policy, persistence, replication
- `endpoints`      HTTP endpoints: public keys, receivers, traces

Each function returns outcomes, and raises nothing that a dependency can cause.
"""
