"""From alerts to messages that people receive.

- `groups`       which alerts share a message
- `decision`     whether a receiver is to be told about a group now, and why: pure
- `records`      what is remembered of what a receiver was told
- `notification` one message, and the key that makes a repeat of it recognisable
- `notifier`     the loop of the replica that ticks: decide, send, note
- `receivers`    the receivers of a configuration, and how each is doing
- `outlet`       where messages go: the interface, its failure, posting JSON, threads
- `webhook`, `alertmanager`, `messages`   the kinds of receivers: Alertmanager's webhook body, a real Alertmanager,
                 and, by the `apprise` library, e-mail, chat and the rest

What is to be told is stored in the same step as the second that decided it, and what was told only after the
receiver took it. Between the two stands an intent: should the replica die there, its successor sends the message
again, with the same key. So every message arrives at least once, and a receiver that minds can tell.
"""
