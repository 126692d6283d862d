"""YAML as people read it: long expressions and their comments in block scalars, keys in the order they were given."""

from typing import Any

import yaml

HEADER = "# Written by `agent-oncall generate`: change alert_rules/ or dashboards/ and generate again.\n"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _string)


def dump(document: Any) -> str:
    """The document as YAML under a header that says where it comes from."""
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
