"""From alerts to messages for receivers.

- `decision`      whether to notify a receiver about a group now, and why: pure
- `nflog`         what receivers were sent, as stored
- `notification`  groups of alerts, and one message with its idempotency key
- `notifier`      the leader's loop: decide, send, record
- `receivers`     the configured receivers and their status
- `integrations`  the kinds of receivers: webhook, Alertmanager, and e-mail, chat and more by `apprise`

An alert to notify is stored in the same step as the second that changed it, and the log entry only after the receiver
took the message. Between the two the message is a pending send: if the leader dies there, its successor sends it
again with the same key. So every message arrives at least once, and a receiver can recognise a repeat.
"""
