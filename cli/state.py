"""`agent-oncall state`: the state file that agents follow, and its audit log."""

import argparse
import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from agent_oncall.schema import Breaker, Bundle, Enabled, State, StateError, document, loads, parse_bundle
from cli.common import add_command, agent_option, change_options, fail, state_option, store_of, tell, told
from controller import actions
from controller.changes import differences
from controller.rollouts import Rollout
from controller.store import Store, StoreError

_EXAMPLE = """\
  agent-oncall state init --agent support --model gpt-4o-2024-08-06 --provider openai \\
      --prompt support@1.9.0 --reason "first version"
  agent-oncall state show
  agent-oncall state log --agent support
  agent-oncall state follow --url http://controller:9465 --token-file state.token --state /state/flags.json
"""

_ASSUMED = ("temperature", "max_iter", "tool_schema")
"""Of a first version, what has the runtime's own default where it isn't given."""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "state",
        help="the state that agents follow: make, check, show, follow it; the audit log",
        example=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)

    command = add_command(
        commands,
        "init",
        help="make the state file, or add an agent to it",
        example="  agent-oncall state init --agent support --model gpt-4o-2024-08-06 --provider openai \\\n"
        '      --prompt support@1.9.0 --reason "first version"',
    )
    command.add_argument("--agent", metavar="NAME", help="an agent to add; without it, an empty state is made")
    version_options(command)
    command.add_argument("--recover", action="store_true", help="make a lost or broken file anew from the audit log")
    command.add_argument(
        "--generation",
        type=int,
        metavar="N",
        help="the file's, at least: above that of a state which agents saw before; they tell it when they refuse one",
    )
    change_options(command)
    command.set_defaults(run=told(_init, "state init"))

    command = add_command(
        commands,
        "backup",
        help="set the version that an agent runs while its provider is out",
        example="  agent-oncall state backup --agent support --model claude-sonnet-4-5-20250929 \\\n"
        '      --provider anthropic --reason "a second provider"',
    )
    agent_option(command)
    version_options(command)
    change_options(command)
    command.set_defaults(run=told(_backup, "state backup"))

    command = add_command(
        commands, "check", help="whether the file is valid; exit 1 if not", example="  agent-oncall state check"
    )
    state_option(command)
    command.set_defaults(run=_check)

    command = add_command(commands, "show", help="what is in force", example="  agent-oncall state show --json")
    state_option(command)
    command.add_argument("--json", action="store_true", help="the whole file")
    command.set_defaults(run=told(_show, "state show"))

    command = add_command(
        commands, "log", help="the audit log: who changed what, when and why", example="  agent-oncall state log -n 5"
    )
    state_option(command)
    command.add_argument("--agent", metavar="NAME", help="changes of this agent alone")
    command.add_argument("-n", type=int, default=20, metavar="N", help="the latest N changes (default %(default)s)")
    command.add_argument("--json", action="store_true", help="a line of JSON for each")
    command.set_defaults(run=told(_log, "state log"))

    command = add_command(
        commands,
        "follow",
        help="keep a copy of the controller's state on this host, until stopped",
        example="  agent-oncall state follow --url http://controller:9465 --token-file state.token \\\n"
        "      --state /state/flags.json",
    )
    state_option(command)
    command.add_argument("--url", required=True, metavar="URL", help="the controller's, such as http://controller:9465")
    command.add_argument("--token-file", required=True, type=Path, metavar="FILE", help="holds the token for /state")
    command.add_argument("--ca-file", type=Path, metavar="FILE", help="authority of the controller's certificate, PEM")
    command.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="how often to ask (default 1)")
    command.add_argument("--once", action="store_true", help="ask once and stop; exit 1 if there was no answer")
    command.set_defaults(run=told(_follow, "state follow"))


def version_options(parser: argparse.ArgumentParser) -> None:
    """The keys of a version of an agent."""
    group = parser.add_argument_group("the version")
    group.add_argument("--model", metavar="NAME", help="dated or numbered, never an alias")
    group.add_argument("--pinned", action="store_true", default=None, help="the model's name stands for one version")
    group.add_argument("--provider", metavar="NAME")
    group.add_argument("--prompt", metavar="NAME[@VERSION]", help="in the registry; the version is exact")
    group.add_argument("--prompt-version", metavar="VERSION")
    group.add_argument("--temperature", type=float, metavar="N")
    group.add_argument("--max-iter", type=int, metavar="N", help="most iterations of a task")
    group.add_argument("--tool-schema", metavar="NAME", help="version of the tools' schema")


def version_changes(options: argparse.Namespace) -> dict[str, object]:
    """What the options say of a version; keys not given are left out."""
    names = ("model", "provider", "prompt", "prompt_version", "temperature", "max_iter", "tool_schema", "pinned")
    found = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    name, at, version = str(found.get("prompt", "")).partition("@")
    if at:
        found |= {"prompt": name, "prompt_version": version}
    return found


def _init(options: argparse.Namespace) -> int:
    from agent_oncall.runtime import Config

    store = store_of(options)
    changes = version_changes(options)
    generation = 1 if options.generation is None else options.generation
    if generation < 1:
        return fail("state init", f"--generation {generation}: 1 or more is needed")
    if options.recover:
        state = store.recover(who=options.who, why=options.reason, generation=generation)
        print(f"{store.path}: made anew from {store.audit_path}, generation {state.generation}")
        for name, agent in sorted(state.agents.items()):
            breaker, enabled = agent.breaker or Breaker(), agent.enabled or Enabled()
            if breaker.state != "closed" or not enabled.on:
                print(f"{name}: {'on' if enabled.on else 'OFF'}, breaker {breaker.state.replace('_', '-')}")
        return 0
    if changes and not options.agent:
        return fail("state init", "--agent is needed: whose version is this?")
    bundle: Bundle | None = None
    if options.agent:
        usual = {key.name: key.default for key in fields(Config) if key.name in _ASSUMED}
        missing = [f"--{key.replace('_', '-')}" for key in ("model", "provider", "prompt") if key not in changes]
        if missing or "prompt_version" not in changes:
            return fail(
                "state init", f"{', '.join(missing or ['--prompt NAME@VERSION'])}: needed for an agent's first version"
            )
        try:
            bundle = parse_bundle("", {**usual, **changes})
        except StateError as error:
            return fail("state init", f"--{error.key.lstrip('.').replace('_', '-')}: {error.problem}")
    made = False
    if store.path.exists() and options.generation is not None:
        return fail("state init", f"--generation: {store.path} is there already; with --recover it is made anew")
    if not store.path.exists():
        store.create(who=options.who, why=options.reason, generation=generation)
        made = True
        print(f"{store.path}: made")
    if bundle is None:
        return 0 if made else fail("state init", f"{store.path}: is there already; --agent adds an agent to it")
    entry = store.change(
        lambda state: actions.add_agent(state, options.agent, bundle),
        action="state init",
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    assumed = [f"--{key.replace('_', '-')} {usual[key]}" for key in _ASSUMED if key not in changes and usual[key] != ""]
    if entry is not None and assumed:
        print(f"assumed, by the runtime's own defaults: {', '.join(assumed)}")
    return tell(entry, f"{options.agent}: is there already, with this version")


def _backup(options: argparse.Namespace) -> int:
    changes = version_changes(options)

    def set_backup(state: State) -> State:
        config = actions.config_of(state, options.agent)
        return actions.set_backup(state, options.agent, actions.changed_version(config.variants["stable"], changes))

    entry = store_of(options).change(
        set_backup, action="state backup", agent=options.agent, who=options.who, why=options.reason
    )
    return tell(entry, f"{options.agent}: has this backup already")


def _check(options: argparse.Namespace) -> int:
    path = store_of(options).path
    try:
        state = loads(path.read_bytes())
    except OSError as error:
        print(f"{path}: {error.strerror}")
        return 1
    except StateError as error:
        print(f"{path}: {error}")
        return 1
    print(f"{path}: valid, generation {state.generation}, {len(state.agents)} agents")
    return 0


def _show(options: argparse.Namespace) -> int:
    state = store_of(options).read()
    if options.json:
        print(json.dumps(document(state), indent=2, ensure_ascii=False))
        return 0
    print(f"generation {state.generation}")
    for name, agent in sorted(state.agents.items()):
        breaker, enabled = agent.breaker or Breaker(), agent.enabled or Enabled()
        print(f"\n{name}: {'on' if enabled.on else 'OFF'}, breaker {breaker.state.replace('_', '-')}")
        if agent.config is not None:
            for variant, bundle in agent.config.variants.items():
                used = " (in use)" if variant == agent.config.default == "backup" else ""
                print(
                    f"  {variant}{used}: {bundle.model} by {bundle.provider}, prompt {bundle.prompt} "
                    f"{bundle.prompt_version}, temperature {bundle.temperature:g}, at most {bundle.max_iter} iterations"
                    + (f", tools {bundle.tool_schema}" if bundle.tool_schema else "")
                )
            rollout = Rollout.of(name, agent.config)
            if rollout is not None:
                at = "paused" if rollout.paused else f"at {rollout.stage} %"
                print(f"  rollout {rollout.id}: {at} since {agent.config.metadata.get('stage_started')}")
        for experiment, found in agent.experiments.items():
            print(f"  experiment {experiment}: {'runs' if found.running else 'stopped'}")
    return 0


def _log(options: argparse.Namespace) -> int:
    entries = [entry for entry in store_of(options).entries() if options.agent in (None, entry.agent)]
    for entry in entries[-options.n :] if options.n > 0 else []:
        if options.json:
            content = {key: getattr(entry, key) for key in type(entry).__dataclass_fields__}
            print(json.dumps(content, ensure_ascii=False))
            continue
        void = "  (never happened: the file could not be replaced, or its writer was killed)" if entry.void else ""
        print(f"{entry.id}  {entry.time}  {entry.who}  {entry.action}  {entry.agent}: {entry.why}{void}")
        for line in differences(entry.before, entry.after):
            print(f"    {line}")
    return 0


def _follow(options: argparse.Namespace) -> int:
    from controller.follow import Follower, FollowError

    try:
        follower = Follower(options.url, options.token_file, Store(options.state).path, ca_file=options.ca_file)
    except FollowError as error:
        return fail("state follow", str(error))
    told_before = ""
    while True:
        try:
            news = follower.step()
        except (FollowError, StoreError) as error:
            news = ""
            if str(error) != told_before:  # once, not each second
                fail("state follow", f"{error}; the copy stays as it is")
            told_before = str(error)
            if options.once:
                return 1
        else:
            told_before = ""
        if news:
            print(news, flush=True)
        if options.once:
            return 0
        try:
            time.sleep(options.every)
        except KeyboardInterrupt:
            return 0
