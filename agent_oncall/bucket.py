"""Where a user stands: the same user, the same place, in every process and after every restart."""

from hashlib import sha256

BUCKETS = 100_000
SHARDS = 16


def bucket(salt: str, user_id: str) -> int:
    """The user's bucket, 0 to 99,999, under a salt: a share of p percent is the users below p * 1,000.

    With a rollout's or an experiment's own salt, who is early in one is not early in the next. A share that grows
    keeps all who were in it.
    """
    return _hash(salt, user_id) * BUCKETS >> 64


def shard(user_id: str) -> int:
    """The user's shard, 0 to 15, the same for all rollouts: users in one shard are one cluster to the statistics."""
    return _hash("oncall.shard", user_id) * SHARDS >> 64


def _hash(salt: str, user_id: str) -> int:
    # The separator keeps "exp1" + "1user" from being "exp11" + "user"; ids come as they come, lone surrogates too.
    return int.from_bytes(sha256(f"{salt}\0{user_id}".encode("utf-8", "surrogatepass")).digest()[:8])
