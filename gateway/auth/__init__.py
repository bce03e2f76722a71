"""Identity and permissions of users, decided before the first byte is answered.

- `identity`       a user as the gateway knows them, signed anonymous sessions, and the refusal
- `authenticator`  one policy for WebSocket, SSE and HTTP: request in, identity out; keys of the server API
- `tokens`         JSON Web Tokens: their verification and their claims
- `jwks`           public keys of the configured issuers
- `tickets`        one-time tickets for browsers, redeemable on any gateway; `bucket` stores them
- `revocations`    revoked tokens; `revocation_log` keeps all gateways' lists alike
- `expiry`         the timer for credentials of an open connection
- `origins`        pages that may talk to this gateway

Permissions themselves are `services.wire.grants`.
"""
