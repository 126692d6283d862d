"""`agent-oncall`: finds the command and runs it. What a command does is in the folder it stands for."""

import argparse
import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command: `cli/NAME.py` has `add(subparsers)`, which registers it. `extra` is what it needs installed."""

    name: str
    extra: str
    help: str


COMMANDS = (
    Command("up", "stack", "start the whole stack on this machine and show it"),
    Command("serve", "exporter", "run the exporter: OTLP in, /metrics out"),
    Command("replay", "exporter", "print what recorded spans count as"),
    Command("demo", "stack", "send the spans of simulated agents"),
    Command("generate", "dashboards", "write dashboards, rules and routing"),
    Command("check", "check", "are an existing Prometheus, Alertmanager, Grafana, agent connected and complete?"),
    Command("incident", "check", "write what happened: timeline, cost, tasks, tools, actions, traces"),
    Command("breaker", "controller", "open, half-open or close an agent's circuit breaker"),
    Command("rollback", "controller", "an agent back to an earlier prompt or model, to its backup provider, or off"),
    Command("rollout", "controller", "a new version for a growing share of users, judged at each stage"),
    Command("ab", "controller", "A/B tests: how many users, start, analyse, stop"),
    Command("prompt", "controller", "add, list and verify versions of prompts"),
    Command("model", "controller", "check that a model's name stands for one version"),
    Command("state", "controller", "the state that agents follow: make, check, show, follow it; the audit log"),
    Command("controller", "controller", "run the controller: acts on alerts, judges rollouts, serves the state"),
)
_PACKAGES = (
    "agent_oncall",
    "alert_rules",
    "check",
    "cli",
    "controller",
    "dashboards",
    "demo",
    "exporter",
    "incident",
    "stack",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="agent-oncall",
        description="On-call for LLM agents: traces to metrics, alerts, dashboards.",
        epilog="agent-oncall COMMAND --help says more. To see it all at work: agent-oncall up",
    )
    version = importlib.metadata.version("agent-oncall")
    parser.add_argument("--version", action="version", version=f"agent-oncall {version}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    chosen = next((command for command in COMMANDS if command.name == wanted), None)
    try:
        # Only the command that is asked for is imported: start-up stays quick, and the others' extras may be missing.
        for command in COMMANDS:
            if command is chosen:
                importlib.import_module(f"cli.{command.name}").add(subparsers)
            else:
                subparsers.add_parser(command.name, help=command.help)
        options = parser.parse_args(arguments)
        code = int(options.run(options) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads, such as `head`, has enough. What is left would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        if chosen is None or (error.name or "").partition(".")[0] in _PACKAGES:
            raise
        print(
            f"agent-oncall {chosen.name} needs the extra [{chosen.extra}]: "
            f"pip install 'agent-oncall[{chosen.extra}]' (there is no module {error.name})",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
