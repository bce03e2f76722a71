"""Reports connections to presence_svc, and looks up there whether users are online.

- `reporter`    sends the changes of connections in batches; each renews this gateway's lease
- `batch_queue` the queue of changes, and their batches
- `online`      whether users are online, for acknowledgements of direct messages
"""
