"""The state file is one that OpenFeature's users read by flagd's file provider, and both see the same in it."""

from collections.abc import Iterator

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import Reason

from agent_oncall import BreakerOpen
from agent_oncall.bucket import bucket
from agent_oncall.schema import Breaker, Enabled, Experiment, State, document_bundle
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World

TONE = Experiment(True, {}, {"temperature": 0.9}, 30_000, {"salt": "tone-1"})
USERS = [f"u{i}" for i in range(300)]


def client_of(world: World, state: State) -> OpenFeatureClient:
    world.say(state)
    provider = FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(world.state_file))
    api.set_provider_and_wait(provider, domain=str(world.folder))
    return api.get_client(str(world.folder))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    api.shutdown()
    api.clear_providers()


@pytest.mark.parametrize("below", [0, 500, 5_000, 50_000, 100_000])
def test_both_give_each_user_the_same_variant(world: World, below: int) -> None:
    state = states.state(3, canary_below=below, tone=TONE)
    client = client_of(world, state)
    runtime = world.runtime()

    for user in USERS:
        context = EvaluationContext(
            user, {"bucket": bucket(states.ROLLOUT["salt"], user), "bucket_tone": bucket("tone-1", user)}
        )
        config = client.get_object_details("support.config", {}, context)
        with runtime.task(user) as task:
            assert (config.variant, config.value) == (
                task.variant,
                document_bundle(getattr(states, task.variant.upper())),
            )
            assert client.get_object_details("support.ab.tone", {}, context).variant == task.arms["tone"]


def test_both_give_nobody_stable(world: World) -> None:
    client = client_of(world, states.state(3, canary_below=100_000))

    assert client.get_object_details("support.config", {}).variant == "stable"
    with world.runtime().task(None) as task:
        assert task.variant == "stable"


def test_both_see_a_backup_in_force(world: World) -> None:
    client = client_of(world, states.state(3, canary_below=100_000, default="backup"))

    details = client.get_object_details("support.config", {}, EvaluationContext("u1", {"bucket": 0}))
    assert (details.variant, details.reason) == ("backup", Reason.STATIC)
    with world.runtime().task("u1") as task:
        assert task.variant == "backup"


def test_both_see_the_breaker_and_the_switch(world: World) -> None:
    client = client_of(world, states.state(3, breaker=Breaker("open", {"share": 2}), enabled=Enabled(False)))

    assert client.get_string_value("support.breaker", "closed") == "open"
    assert client.get_boolean_value("support.enabled", True) is False
    with pytest.raises(BreakerOpen), world.runtime().task("u1"):
        pass
