"""The HTML around the data: template, style sheet and scripts put into one file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from lm_eval_ext.leaderboard.page.embedding import inert_json, source_hash

STYLES = ("base", "table", "run", "questions")
SCRIPTS = (
    "dom",
    "data",
    "numbers",
    "theme",
    "columns",
    "table",
    "plots",
    "curves",
    "heads",
    "tokens",
    "attempts",
    "questions",
    "run",
    "main",
)
"""Modules in the order of their dependencies."""

CHUNKS = "<!--chunks-->"
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.mjs";$', flags=re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const) (\w+)", flags=re.MULTILINE)


class Document(NamedTuple):
    """The page before and after the place of its chunks."""

    before: str
    after: str


def render_document(page: Mapping[str, Any], *, title: str, further_scripts: list[str]) -> Document:
    """Render the page around its chunks.

    The Content-Security-Policy names the one script and the one style sheet of the page by their
    hashes, and those of `further_scripts`, which the page unpacks and adds itself. Nothing else
    can run, and nothing can be fetched.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(_asset("page.html.j2"))
    style, script = style_sheet(), script_bundle()
    # Plotly adds an empty style element and fills it rule by rule.
    allowed_styles = [source_hash(style), source_hash("")]
    allowed_scripts = [source_hash(source) for source in (script, *further_scripts)]
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(allowed_scripts)}",
            f"style-src {' '.join(allowed_styles)}",
            # Attributes, which Plotly sets; nothing else here makes any from a string.
            "style-src-attr 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    html = template.render(
        title=title,
        policy=policy,
        style=_markup(style),
        script=_markup(script),
        page=_markup(inert_json(page)),
        chunks=_markup(CHUNKS),
    )
    before, _, after = html.partition(CHUNKS)
    return Document(before, after)


def script_bundle() -> str:
    """Return all modules as one classic script, which runs before the chunks behind it are read.

    A module becomes a function that returns what it exports.
    """
    modules = "\n".join(_as_function(name, _asset(f"js/{name}.mjs")) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\nconst modules = {{}};\n{modules}\n}})();\n'


def _as_function(name: str, source: str) -> str:
    exported = ", ".join(found[2] for found in _EXPORT.finditer(source))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r"const \1 = modules.\2;", source))
    return f"modules.{name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();\n"


def style_sheet() -> str:
    """Return the style sheet."""
    return "\n".join(_asset(f"css/{name}.css") for name in STYLES)


def _asset(name: str) -> str:
    return (files("lm_eval_ext.leaderboard.page") / "assets" / name).read_text(encoding="utf-8")


def _markup(text: str) -> Any:
    """Mark a text as safe to stand in the template as it is."""
    from markupsafe import Markup

    return Markup(text)
