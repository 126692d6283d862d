"""`agent-oncall controller`: acts on alerts, judges rollouts, serves the state, until it is told to stop."""

import argparse
import asyncio
import contextlib
import http.client
import json
import logging
import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.common import STATE_VARIABLE, add_command, fail
from controller.store import whoami

if TYPE_CHECKING:
    from controller.config import Settings

# The controller's own setting by the environment: the same name for who starts it and for who asks it.
_TOKEN_VARIABLE = "AGENT_ONCALL_CONTROLLER_TOKEN_FILE"
_TOKEN_FILE = "controller.token"

_EXAMPLE = """\
  openssl rand -hex 32 > controller.token && chmod 600 controller.token
  agent-oncall controller --state state/flags.json --token-file controller.token
      Alertmanager's webhook on http://127.0.0.1:9465/alerts; every action is a dry run
  agent-oncall controller --config controller.yml
      docs/controller.md has every setting; any of them by the environment: AGENT_ONCALL_CONTROLLER_ and its name
  agent-oncall controller pending
  agent-oncall controller confirm 6f3a12bc
"""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "controller",
        help="run the controller: acts on alerts, judges rollouts, serves the state",
        example=_EXAMPLE,
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML file of settings")
    parser.add_argument("--listen", metavar="HOST:PORT", help="127.0.0.1:9465 unless given")
    parser.add_argument("--state", metavar="FILE", help=f"the state file; ${STATE_VARIABLE}, else state/flags.json")
    parser.add_argument("--token-file", metavar="FILE", help="tokens that may send alerts, one a line")
    parser.add_argument("--prometheus", metavar="URL", help="http://127.0.0.1:9090 unless given")
    parser.set_defaults(run=_run)
    commands = parser.add_subparsers(metavar="WHAT")
    for name, what in (("pending", "actions that wait to be confirmed"), ("confirm", "let a waiting action be done")):
        command = add_command(
            commands,
            name,
            help=what,
            example=f"  agent-oncall controller {name}{' 6f3a12bc' if name == 'confirm' else ''} --token-file my.token",
        )
        if name == "confirm":
            command.add_argument("id", metavar="ID")
        command.add_argument("--url", metavar="URL", default="http://127.0.0.1:9465", help="default: %(default)s")
        command.add_argument(
            "--token-file",
            metavar="FILE",
            # Given before the command's name it holds as well.
            default=argparse.SUPPRESS,
            help=f"${_TOKEN_VARIABLE}, else {_TOKEN_FILE}",
        )
        command.set_defaults(run=_pending if name == "pending" else _confirm)


def _run(options: argparse.Namespace) -> int:
    from controller.config import Settings
    from controller.prom import PrometheusError
    from exporter.config import ConfigError, load_as, unknown_variables
    from exporter.listen import ListenError

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    overrides: dict[str, Any] = {}
    if options.listen:
        overrides["listen"] = {"address": options.listen}
    if options.prometheus:
        overrides["prometheus"] = {"url": options.prometheus}
    if options.token_file:
        overrides["token_file"] = options.token_file
    state = options.state or os.environ.get(STATE_VARIABLE)
    if state:
        overrides["state"] = state
    try:
        settings = load_as(Settings, options.config, overrides)
        for name in unknown_variables(os.environ, Settings):
            logging.getLogger("controller").warning("the environment variable %s is no setting", name)
        return asyncio.run(_serve(settings))
    except (ConfigError, ListenError, PrometheusError) as error:
        return fail("controller", str(error))


async def _serve(settings: "Settings") -> int:
    from controller.server import Server
    from controller.store import Store

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    path = settings.state
    server = Server(settings, Store(path / "flags.json" if path.is_dir() else path))
    await server.start()
    try:
        await stopped.wait()
    finally:
        await server.stop()
    return 0


def _pending(options: argparse.Namespace) -> int:
    found = _ask("pending", options, None)
    if isinstance(found, str):
        return fail("controller pending", found)
    for waiting in found:
        print(f"{waiting['id']}  {waiting['agent']}  {waiting['action']}  {waiting['alert']}")
    if not found:
        print("nothing waits")
    return 0


def _confirm(options: argparse.Namespace) -> int:
    found = _ask("confirm", options, {"id": options.id, "who": whoami()})
    if isinstance(found, str):
        return fail("controller confirm", found)
    print(found["text"])
    return 0


def _ask(what: str, options: argparse.Namespace, content: object) -> Any:
    """The controller's answer, or a text that says why there is none."""
    url = f"{options.url.rstrip('/')}/{what}"
    body = None if content is None else json.dumps(content).encode()
    file = Path(options.token_file or os.environ.get(_TOKEN_VARIABLE) or _TOKEN_FILE)
    try:
        token = file.read_text().split()
    except (OSError, ValueError) as error:
        return (
            f"{file}: {getattr(error, 'strerror', error)}; name the token's file by --token-file or ${_TOKEN_VARIABLE}"
        )
    try:
        request = urllib.request.Request(url, body, {"Authorization": f"Bearer {token[0] if token else ''}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace").strip()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["text"]
        return f"{url} answered {error.code}: {text}"
    except http.client.HTTPException as error:
        return f"{url}: no answer of HTTP: {error!r}"
    except (OSError, ValueError) as error:
        return f"{url}: {getattr(error, 'reason', error)}"
