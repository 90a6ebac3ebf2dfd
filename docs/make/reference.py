"""The pages under `docs/reference`: `python -m docs.make.reference` writes them anew.

Options come from the command line's own definitions, the fields of a ledger from `docs/ledger-schema.json`, the list of
modules from `docs.make.public`; `tests/docs/test_reference.py` fails where a page says anything else. The pages about
modules exist in the built site only (`docs.make.api_pages`), because a docstring is at hand
wherever the code is.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import click
import typer

from docs.make.api_pages import cell
from docs.make.generated import DOCS, table, write
from docs.make.public import MODULES
from fedavg.cli.app import app

FOLDER = DOCS / "reference"
INDEX = FOLDER / "index.md"
COMMANDS = FOLDER / "command-line.md"
LEDGER = FOLDER / "ledger.md"
SCHEMA = DOCS / "ledger-schema.json"


def module_blocks() -> dict[str, str]:
    """The public modules, each with what it is for."""
    return {"modules": table(["module", "for"], [(f"`{module}`", what) for module, what in MODULES.items()])}


def command_blocks() -> dict[str, str]:
    """Every command with every option."""
    return {"commands": "\n".join(command_text(path, command) for path, command in commands())}


def commands(
    command: click.Command | None = None, path: str = "veilsum"
) -> Iterator[tuple[str, click.Command]]:
    """All commands with their full names, outer ones first."""
    command = typer.main.get_command(app) if command is None else command
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def command_text(path: str, command: click.Command) -> str:
    """One command: what it does, how it is called, its options, its commands."""
    arguments = [usage(p) for p in command.params if isinstance(p, click.Argument)]
    parts = [f"## `{path}`\n", inspect.cleandoc(command.help or "") + "\n"]
    if arguments:
        parts.append("    " + " ".join([path, *arguments, "[OPTIONS]"]) + "\n")
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        rows = [(names_of(p), kind(p), shown_default(p), described(p)) for p in options]
        parts.append(table(["option", "takes", "default", "meaning"], rows))
    inner = getattr(command, "commands", {})
    if inner:
        rows = [(f"`{path} {name}`", cell((c.help or "").split("\n\n")[0])) for name, c in inner.items()]
        parts.append(table(["command", "does"], rows))
    return "\n".join(parts)


def usage(argument: click.Argument) -> str:
    """An argument as it stands in a line of usage: in brackets where it may be left out."""
    name = (argument.metavar or argument.human_readable_name).strip("[]")
    return name if argument.required else f"[{name}]"


def described(parameter: Any) -> str:
    """A parameter's own help, in one cell."""
    return cell(getattr(parameter, "help", None) or "")


def names_of(option: click.Option) -> str:
    """All spellings of an option."""
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def kind(option: click.Option) -> str:
    """What an option takes: a kind of value, a choice, or nothing."""
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return " or ".join(f"`{choice}`" for choice in option.type.choices)
    return f"{option.type.name}" + (", several" if option.multiple else "")


def shown_default(option: click.Option) -> str:
    """What holds where an option is left out."""
    default = option.default
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return cell(option.show_default)
    if callable(default) or default in (None, False, "", ()) or not isinstance(default, str | int | float):
        return ""
    return "on" if default is True else f"`{default}`"


def ledger_blocks() -> dict[str, str]:
    """The fields of an exported ledger."""
    schema = json.loads(SCHEMA.read_text())
    parts = [object_text("the export", schema)]
    for name, inner in schema["$defs"].items():
        parts.append(object_text(name, inner))
    return {"fields": "\n".join(parts)}


def object_text(name: str, schema: dict[str, Any]) -> str:
    """One object of the schema as a table."""
    required = set(schema.get("required", ()))
    rows = [
        (f"`{field}`", type_of(what), "yes" if field in required else "", cell(what.get("description", "")))
        for field, what in nested(schema)
    ]
    text = f"## {name[0].upper()}{name[1:]}\n\n"
    if "description" in schema:
        text += schema["description"] + "\n\n"
    return text + (table(["field", "type", "always there", "meaning"], rows) if rows else "")


def nested(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Fields of an object and of the objects in it."""
    for field, what in schema.get("properties", {}).items():
        yield prefix + field, what
        yield from nested(what, f"{prefix}{field}.")


def type_of(what: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "$ref" in what:
        name = what["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name})"
    if "const" in what:
        return f"`{json.dumps(what['const'])}`"
    if "enum" in what:
        return " or ".join(f"`{json.dumps(value)}`" for value in what["enum"])
    if "anyOf" in what or "oneOf" in what:
        return " or ".join(type_of(one) for one in what.get("anyOf", what.get("oneOf")))
    kinds = what.get("type", "any")
    text = " or ".join(kinds) if isinstance(kinds, list) else kinds
    if kinds == "array":
        text += f" of {type_of(what.get('items', {}))}"
    limits = [f"{sign} {what[key]}" for key, sign in LIMITS.items() if key in what]
    if "pattern" in what:
        limits.append(f"`{what['pattern']}`")
    return text + (f", {', '.join(limits)}" if limits else "")


LIMITS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "minItems": "items >=",
}


def main() -> None:
    """Write every page."""
    write(INDEX, module_blocks())
    write(COMMANDS, command_blocks())
    write(LEDGER, ledger_blocks())


if __name__ == "__main__":
    main()
