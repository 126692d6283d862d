"""Where a user stands: evenly, for good, and anew for each salt."""

from collections import Counter

import pytest

from agent_oncall.bucket import BUCKETS, SHARDS, bucket, shard

USERS = [f"user-{i}" for i in range(20_000)]


def test_a_user_stays_in_the_same_bucket() -> None:
    # Fixed numbers: another version of this library must not move anybody.
    assert [bucket("r12-6f3a", "alice"), bucket("r12-6f3a", "bob"), shard("alice"), shard("bob")] == [
        54763,
        60410,
        15,
        3,
    ]


@pytest.mark.parametrize("percent", [0, 0.5, 5, 10, 25, 50, 100])
def test_a_share_of_buckets_is_that_share_of_users(percent: float) -> None:
    inside = sum(bucket("r12", user) < percent * 1000 for user in USERS)

    mean = len(USERS) * percent / 100
    assert inside == pytest.approx(mean, abs=4 * (mean * (1 - percent / 100)) ** 0.5)


def test_two_salts_split_users_independently() -> None:
    both = sum(bucket("one", user) < BUCKETS / 2 and bucket("two", user) < BUCKETS / 2 for user in USERS)

    assert both == pytest.approx(len(USERS) / 4, rel=0.05)


def test_where_the_salt_ends_matters() -> None:
    assert bucket("exp1", "1user") != bucket("exp11", "user")


def test_shards_are_even_and_independent_of_buckets() -> None:
    canary = [user for user in USERS if bucket("r12", user) < 50_000]
    counts = Counter(map(shard, canary))

    assert set(counts) == set(range(SHARDS))
    assert max(counts.values()) < 1.25 * min(counts.values())


def test_a_user_id_may_be_any_text() -> None:
    assert all(0 <= bucket("s", user) < BUCKETS for user in ("", "\0", "ü", "\ud800"))
