"""What `tidings check` tries, one file for each kind of dependency.

- `outcome`        what trying one thing gave, and what to do about it
- `configuration`  settings that contradict each other, files that settings name
- `machine`        ports, file descriptors, the accept queue
- `nats`           servers, login, permissions, JetStream, streams
- `store`          Redis: version, permissions, memory policy, persistence, replication
- `endpoints`      what is reached by HTTP: public keys, receivers, traces

Each function returns outcomes and raises nothing that a dependency can cause.
"""
