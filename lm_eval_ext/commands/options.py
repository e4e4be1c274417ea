"""Builds a command line from a dataclass: its fields are the options, its docstring is the help.

Fields are declared with `lm_eval_ext.checks.option` and `required`. Those before
`dataclasses.KW_ONLY` are arguments, the others options: ``batch_size`` is ``--batch-size``. A tuple
is a list separated by commas (as an argument: several words), a `Literal` a choice. A field that is
a dataclass itself is a section of options, whose names begin with the ``prefix`` in its metadata.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from lm_eval_ext.errors import UserError

Options = TypeVar("Options")

OLD_SPELLINGS = {
    "--checkpoint-every": "--checkpoint-steps",
    "--max-gen-toks": "--max-new-tokens",
    "--metric": "--metrics",
    "--model-config": "--pretrained",
    "--num-prompts": "--num-problems",
    "--prompts": "--problems",
    "--rollout-batch-size": "--generation-batch-size",
    "--steps-per-checkpoint": "--checkpoint-steps",
    "--store": "--results",
    "--target": "--pretrained",
    "--task": "--tasks",
}
"""Options of the last release by their names in this one, for commands that have only the latter.

Understood for one release, as are underscores for dashes.
"""


HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


def parse(options: type[Options], words: Sequence[str]) -> Options:
    """Return the options that the words of a command line give.

    Raises
    ------
    click.UsageError
        For words that are no options of the command.
    """
    reader = DataclassCommand("command", options, lambda given: given)
    with reader.make_context("command", list(words)) as context:
        return reader.invoke(context)


class DataclassCommand(click.Command):
    """A command that fills a dataclass from its words, and returns what is done with it.

    Its help is the docstring of the dataclass, with what follows "Example:" at the end.
    """

    def __init__(self, name: str, options: type[Options], run: Callable[[Options], Any]) -> None:
        text, _, example = (inspect.getdoc(options) or "").partition("Example:")
        self.described = list(_parameters(options))
        super().__init__(
            name,
            context_settings=HELP_OPTIONS,
            params=[parameter for _, parameter, _ in self.described],
            callback=lambda **values: run(_filled(options, values)),
            help=text,
            short_help=_first_line(text),
            epilog=" ".join(example.split()),
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words, in old spellings too."""
        return super().parse_args(ctx, [self._in_use(word) for word in args])

    def _in_use(self, word: str) -> str:
        """Return a word of the command line, in the spelling of today if it is an old option."""
        given, equals, value = word.partition("=")
        if not given.startswith("--"):
            return word
        known = {name for p in self.params for name in (*p.opts, *p.secondary_opts)}
        dashed = given.replace("_", "-")
        name = dashed if dashed in known else OLD_SPELLINGS.get(dashed)
        if given in known or name not in known:
            return word
        said = f"{given} is called {name} now; the old name goes with the next release"
        click.echo(said, err=True)
        return f"{name}{equals}{value}"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options by section."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for title, parameter, text in self.described:
            record = parameter.get_help_record(ctx) if title != "Arguments" else None
            sections.setdefault(title, []).append(record or (parameter.make_metavar(ctx), text))
        sections["Options"].append(("-h, --help", "show this message and exit"))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example in one line, however long."""
        with formatter.section("Example"):
            formatter.write(f"  {self.epilog}\n")


class _List(click.ParamType):
    """Items separated by commas."""

    def __init__(self, item: click.ParamType) -> None:
        self.item, self.name = item, f"{item.name},..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        items = [part.strip() for part in value.split(",") if part.strip()]
        if not items:
            self.fail("name at least one, separated by commas", param, ctx)
        return tuple(self.item.convert(item, param, ctx) for item in items)


def _parameters(
    options: type, prefix: str = "", section: str = "Options"
) -> Iterator[tuple[str, click.Parameter, str]]:
    """Yield section, parameter and help of each field."""
    for field, kind in _fields(options):
        text = field.metadata.get("help", "")
        if dataclasses.is_dataclass(kind):
            title = _first_line(inspect.getdoc(kind) or "")
            yield from _parameters(kind, _prefix(field), title)  # type: ignore[arg-type]
        elif field.kw_only or prefix or section != "Options":
            yield section, _made_option(field, kind, prefix + field.name), text
        else:
            several = get_origin(kind) is tuple
            item = _item_type(get_args(kind)[0] if several else kind)
            needed = field.default is dataclasses.MISSING
            count = -1 if several else 1
            argument = click.Argument([field.name], type=item, nargs=count, required=needed)
            yield "Arguments", argument, text


def _fields(options: type) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Yield the fields with their types, without the None that a type may have."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = hints[field.name]
        if get_origin(kind) in (Union, types.UnionType):
            (kind,) = set(get_args(kind)) - {type(None)}
        yield field, kind


def _made_option(field: dataclasses.Field[Any], kind: Any, name: str) -> click.Option:
    default, dashed = field.default, _option(name)
    given: dict[str, Any] = {"help": field.metadata["help"], "required": True}
    if default is not dataclasses.MISSING:
        shown = default is not None and default is not False and default not in ("", ())
        given |= {"default": default, "show_default": shown, "required": False}
    if kind is bool:
        dashed += f"/--no-{dashed[2:]}" * bool(default)
        given |= {"is_flag": True}
    elif get_origin(kind) is not tuple:
        given |= {"type": _item_type(kind)}
    elif "repeat" in field.metadata:
        given |= {"type": _item_type(get_args(kind)[0]), "multiple": True}
    else:
        given |= {"type": _List(_item_type(get_args(kind)[0]))}
    if "bare" in field.metadata:
        given |= {"is_flag": False, "flag_value": field.metadata["bare"]}
    return click.Option([dashed, name], **given)


def _option(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def _prefix(field: dataclasses.Field[Any]) -> str:
    return f"{field.metadata['prefix']}_" if "prefix" in field.metadata else ""


def _item_type(kind: Any) -> click.ParamType:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    return click.Path(path_type=Path) if kind is Path else click.types.convert_type(kind)


def _filled(options: type[Options], values: dict[str, Any], prefix: str = "") -> Options:
    """Make the dataclass; in what it refuses, fields are called as on the command line."""
    given = {}
    for field, kind in _fields(options):
        if dataclasses.is_dataclass(kind):
            given[field.name] = _filled(kind, values, _prefix(field))  # type: ignore[arg-type]
        elif values[prefix + field.name] not in (None, ()):
            given[field.name] = values[prefix + field.name]
    try:
        return options(**given)
    except UserError as error:
        name, equals, rest = str(error).partition("=")
        if name not in given:
            raise
        raise UserError(f"{_option(prefix + name)}{equals}{rest}") from error


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(".")
