"""Reports connections to presence_svc, and asks it who is online.

- `reporter`    reports which connections exist; each report renews this gateway's lease
- `batch_queue` what waits to be reported
- `online`      whether users are online, for acknowledgements of direct messages
"""
