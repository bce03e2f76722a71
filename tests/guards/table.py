"""The guards of `docs/security.md`: the source of each, and the tests that fail without it.

Where a second guard stands behind the first, both are taken out (`edits` are made together). What cannot be taken
out, because nothing is there but the absence of a mistake, is in `NOT_TAKEN_OUT`.
"""

from tests.guards import access, delivery, hostile_input, servers

GUARDS = (*access.GUARDS, *hostile_input.GUARDS, *servers.GUARDS, *delivery.GUARDS)

# Tests of the threat table that no guard was taken out for, and why.
NOT_TAKEN_OUT = {
    "test_key_confusion": "PyJWT, behind the choice of algorithm, takes no public key as an HMAC secret",
    "test_poisoned_host": "handlers are bound to routes: nothing looks at the URL's text, and Starlette refuses such hosts",
    "test_poisoned_host_opens_no_door": "the same",
    "test_lua_injection": "scripts are constant files: there is no place where a name could become one",
    "test_credentials_are_not_sent_to_a_server_without_tls": "nats-py refuses it; ours is the explanation",
}
