"""Who somebody is and what they may do, decided before the first byte is answered.

- `identity`       a user as the gateway knows them
- `grants`         what a user may do, by patterns over rooms and channels
- `authenticator`  one policy for WebSocket, SSE and HTTP: request in, identity out
- `sessions`       the signed session with which an anonymous user comes back
- `tokens`         JSON Web Tokens: which ones are believed, and what they say
- `tickets`        one-time tickets for browsers, redeemable on any gateway
- `origins`        which pages may talk to this gateway
- `server_keys`    the keys of the server API
- `refusal`        how all of them say no
"""
