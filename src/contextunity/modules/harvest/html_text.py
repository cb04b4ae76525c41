"""Convert the HTML of product descriptions to text, parsed by lexbor like in a browser."""

from __future__ import annotations

from html import unescape

from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = ["MAX_HTML_CHARS", "html_to_text"]

MAX_HTML_CHARS = 128 * 1024
"""Maximum characters of a description that are read. Longer ones have embedded pictures, or are hostile."""
_MAX_TAGS = 8192
"""Maximum elements. Descriptions of this length in real shops have a fifth of them. The parser's time is quadratic in
the nesting: a third of a second for these, and seconds for as many as fit into the characters."""

_BLOCKS = (
    "address article aside blockquote br center dd details dialog div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav ol option p pre section summary table tbody tfoot "
    "thead tr ul"
)
_EDGES = {**dict.fromkeys(_BLOCKS.split(), "\n"), "td": " ", "th": " "}
"""Replacement for the start and end of an element; all others, such as <b>, are removed."""
_HIDDEN = frozenset(
    ("script", "style", "template", "noscript", "noembed", "noframes", "iframe", "-comment", "-doctype", "")
)
"""Invisible elements, and nodes that are not elements: a processing instruction has no name."""


def html_to_text(html: str) -> str:
    """Return the text of a piece of HTML.

    Paragraphs, list items and the like become lines; cells of a table are separated by a space; scripts, styles and
    comments are removed; runs of whitespace become one space. Text without any markup keeps its lines.
    """
    html = html[:MAX_HTML_CHARS].replace("\r\n", "\n").replace("\r", "\n")
    text = _text_of(html) if "<" in html else unescape(html)
    return "\n".join([" ".join(words) for line in text.split("\n") if (words := line.split())])


def _text_of(html: str) -> str:
    if html.count("<") >= _MAX_TAGS:
        html = "<".join(html.split("<", _MAX_TAGS)[:_MAX_TAGS])
    # In HTML a line break is whitespace.
    body = LexborHTMLParser(html.replace("\n", " ")).body
    parts: list[str] = []
    edge = _EDGES.get
    # Iterate: CSS selectors are slower, and hostile HTML would exhaust a recursion.
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
        # A sign as in "1 < 2" is not markup.
        plain = unescape(html)
        return plain if text.split() == plain.split() else text
    return text
