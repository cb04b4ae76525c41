"""Turns the HTML of product descriptions into text, read by lexbor as a browser reads it."""

from __future__ import annotations

from html import unescape

from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = ["MAX_HTML_CHARS", "html_to_text"]

MAX_HTML_CHARS = 128 * 1024
"""What of a description is looked at. Longer ones have pictures inlined in them, or mean harm."""
_MAX_TAGS = 8192
"""As long a description of real shops has a fifth of them. The parser takes time by the square of elements within each
other: a third of a second for these, and seconds for as many as the characters could hold."""

_BLOCKS = (
    "address article aside blockquote br center dd details dialog div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav ol option p pre section summary table tbody tfoot "
    "thead tr ul"
)
_EDGES = {**dict.fromkeys(_BLOCKS.split(), "\n"), "td": " ", "th": " "}
"""What the beginning and end of an element become; those of all others, such as <b>, leave nothing."""
_HIDDEN = frozenset(
    ("script", "style", "template", "noscript", "noembed", "noframes", "iframe", "-comment", "-doctype", "")
)
"""Elements that nobody sees, and what is none: a processing instruction has no name."""


def html_to_text(html: str) -> str:
    """Give the text of a piece of HTML.

    Paragraphs, list items and the like become lines; cells of a table are separated by a blank; scripts, styles and
    comments are left out; runs of white space become one blank. Text without any markup keeps its lines.
    """
    html = html[:MAX_HTML_CHARS].replace("\r\n", "\n").replace("\r", "\n")
    text = _text_of(html) if "<" in html else unescape(html)
    return "\n".join([" ".join(words) for line in text.split("\n") if (words := line.split())])


def _text_of(html: str) -> str:
    if html.count("<") >= _MAX_TAGS:
        html = "<".join(html.split("<", _MAX_TAGS)[:_MAX_TAGS])
    # In HTML a line break is a blank like any other.
    body = LexborHTMLParser(html.replace("\n", " ")).body
    parts: list[str] = []
    edge = _EDGES.get
    # By hand and not by CSS selectors, which are slower, and not by recursion, which hostile HTML would exhaust.
    opened: list[tuple[LexborNode, str]] = []
    marked = False
    node = body.first_child if body is not None else None
    while node is not None or opened:
        if node is None:
            node, mark = opened.pop()
            parts.append(mark)
        elif (tag := node.tag or "") == "-text":
            parts.append(node.text_content or "")
        elif tag not in _HIDDEN:
            mark = edge(tag, "")
            parts.append(mark)
            marked = True
            if (child := node.first_child) is not None:
                opened.append((node, mark))
                node = child
                continue
            parts.append(mark)
        node = node.next
    text = "".join(parts)
    if not marked:
        # A sign such as that of "1 < 2" is no markup.
        plain = unescape(html)
        return plain if text.split() == plain.split() else text
    return text
