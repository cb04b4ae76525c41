"""Turns the HTML of product descriptions into text."""

from __future__ import annotations

import re
from html import unescape

__all__ = ["MAX_HTML_CHARS", "html_to_text"]

MAX_HTML_CHARS = 128 * 1024
"""What of a description is looked at. Longer ones have pictures inlined in them, or mean harm."""

_BLOCK_NAMES = (
    "address article aside blockquote body br center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li main menu nav ol option p pre section "
    "summary table tbody tfoot thead title tr ul"
)
# What a tag becomes; of tags that are not here, such as <b>, nothing stays.
_REPLACEMENTS = {**dict.fromkeys(_BLOCK_NAMES.split(), "\n"), "td": " ", "th": " "}
# One pattern walks through the text once. Each alternative either ends or takes all the rest, and quoted values are
# bounded, so that no description makes it slow.
_MARKUP = re.compile(
    r"<(?:"
    r"(?P<skip>!--.*?(?:-->|\Z)|(?P<raw>script|style|template|noscript)\b.*?(?:</(?P=raw)\s*>|\Z)|[!?][^>]*(?:>|\Z))"
    r"|/?(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?:[^<>\"']++|\"[^\"]{0,4096}\"|'[^']{0,4096}')*+>"
    r")",
    re.DOTALL | re.IGNORECASE,
)


def html_to_text(html: str) -> str:
    """Give the text of a piece of HTML.

    Paragraphs, list items and the like become lines; cells of a table are separated by a blank; scripts, styles and
    comments are left out; runs of white space become one blank. Text without any markup keeps its lines.
    """
    html = html[:MAX_HTML_CHARS]
    if "<" in html and _MARKUP.search(html):
        # In HTML a line break is a blank like any other.
        text = _MARKUP.sub(_replacement, html.replace("\n", " ").replace("\r", " "))
    else:
        text = html.replace("\r\n", "\n").replace("\r", "\n")
    if "&" in text:
        text = unescape(text)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _replacement(found: re.Match[str]) -> str:
    name = found["name"]
    return "" if name is None else _REPLACEMENTS.get(name.lower(), "")
