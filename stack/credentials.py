"""The files that docker-compose.yml gives its services as secrets: made on the first start, never overwritten.

python -m stack.credentials [FOLDER]
"""

import secrets
import sys
from pathlib import Path

from stack.pager import ROUTING_KEY

FOLDER = Path(__file__).resolve().parent.parent / "secrets"

# Of the local pager, which checks the form alone. Your own go into the same files.
_LOCAL = {
    "pagerduty_routing_key": ROUTING_KEY,
    "slack_api_url": "http://pager:9095/services/T00000000/B00000000/local",
}


def random_token() -> str:
    """32 characters that nobody guesses."""
    return secrets.token_urlsafe(24)


def ensure(folder: Path = FOLDER) -> list[str]:
    """Makes the files that are not there; their names. The folder is its owner's alone.

    The files themselves may be read by all: each is mounted by itself into a container whose user is another one.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    random = {name: random_token() for name in ("grafana_admin_password", "controller_token")}
    made = []
    for name, text in (_LOCAL | random).items():
        path = folder / name
        if not path.exists():
            path.touch(mode=0o644)
            path.write_text(text, encoding="utf-8")
            made.append(name)
    return made


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    print(f"{where}: {', '.join(ensure(where)) or 'nothing'} made")
