"""Who somebody is and what they may do, decided before the first byte is answered.

- `identity`       a user as the gateway knows them
- `grants`         what a user may do, by patterns over rooms and channels
- `authenticator`  one policy for WebSocket, SSE and HTTP: request in, identity out
- `sessions`       the signed session with which an anonymous user comes back
- `tokens`         JSON Web Tokens: which ones are believed, and what they say
- `jwks`           public keys of the configured issuers; `jwks_fetch` gets them
- `revocations`    tokens that count no more; `revocation_log` keeps all gateways' lists alike
- `expiry`         when the credentials of an open connection end, and the warning before
- `tickets`        one-time tickets for browsers, redeemable on any gateway
- `origins`        which pages may talk to this gateway
- `server_keys`    the keys of the server API, and what each is for
- `refusal`        how all of them say no
"""
