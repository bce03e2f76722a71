"""Matching of NATS wildcards, in a simple implementation."""


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject without wildcards is matched."""
    want, have = pattern.split("."), subject.split(".")
    for index, word in enumerate(want):
        if word == ">":
            return len(have) > index
        if index >= len(have) or word not in ("*", have[index]):
            return False
    return len(want) == len(have)


def overlaps(one: str, other: str) -> bool:
    """Whether some subject is matched by both."""
    ours, theirs = one.split("."), other.split(".")
    for a, b in zip(ours, theirs, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(ours) == len(theirs)
