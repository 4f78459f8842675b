# SPDX-License-Identifier: GPL-2.0-only
"""HTML that may be published: without scripts, addresses to load from, or hidden text.

The HTML of a notebook may hold whatever a process, a file or its author put there. It is parsed
and written anew: comments, scripts, handlers, frames, addresses to load from, and images that
are not PNG are left out; PNG lose their metadata; text and attributes are redacted.

nbconvert's sanitizer (bleach) drops scripts as well. But it knows of no wall, and the wall has to
look at words and not at markup, where a user called "span" would cost every tag of that name; so
the page is parsed here in any case, and what must not run, load or hide is left out on the way.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from html.parser import HTMLParser

from anonvma.report.images import bare_png
from anonvma.report.redaction import Wall

# Left out with everything in them, and left out themselves.
_DROPPED = {"script", "iframe", "object", "embed", "metadata", "template", "noscript", "applet"}
_VOID_DROPPED = {"link", "meta", "base", "frame", "input", "source", "track"}
_UNWRAPPED = {"html", "head", "body", "form", "button", "video", "audio", "foreignobject"}
_VOID = {"area", "br", "col", "hr", "img", "input", "wbr"}
_KEPT = {"alt", "title", "class", "id", "style", "width", "height", "colspan", "rowspan", "scope"}
_KEPT |= {"role", "lang", "open", "start", "type", "span", "headers"}
# Of classes and ids, those of pandas' tables, of nbconvert and of Pygments; others may be words.
_STYLED = re.compile(
    r"T_[0-9a-f]{8}(?:_level\d+_(?:col|row)\d+|_row\d+_col\d+)?|(?:row|col|level)\d+|[a-z]{1,3}\d?"
    r"|dataframe|data|blank|(?:col|row)_heading|index_name|highlight|hl-\w{1,8}"
    r"|output_(?:html|png|svg|jpeg|markdown|text|subarea|area)|rendered_html"
)
_LOADS = {"src", "srcset", "poster", "background", "data", "xlink:href", "href", "action"}
_LINKS = re.compile(r"(?:https?|mailto):|#|[\w./-]+$")
_PNG = re.compile(r"data:image/png;base64,(.*)", re.S)
# Marks that turn the direction of what follows, and others without a width.
_UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def harmless(markup: str, wall: Wall, *, ours: bool = False) -> str:
    """Return HTML written anew, as it may be published.

    Parameters
    ----------
    markup : str
        A fragment, such as nbconvert makes of a notebook.
    wall : Wall
        Through which its words go.
    ours : bool
        Whether anonvma itself made it, so that its scripts and buttons stay.
    """
    writer = _Writer(wall.narrowed(markup), ours)
    writer.feed(markup)
    writer.close()
    return "".join(writer.written)


def plain(words: str) -> str:
    """Show control characters, and marks that turn or hide text, as escapes."""
    escaped = "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in words)
    return _UNSEEN.sub(lambda match: _escape(match[0]), escaped)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


class _Writer(HTMLParser):
    """Writes what it reads, less what must not be there."""

    def __init__(self, wall: Wall, ours: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.wall = wall
        self._ours = ours
        self._dropped = _DROPPED - {"script"} if ours else _DROPPED
        self._skipped = (_VOID_DROPPED - {"input"}) if ours else _VOID_DROPPED | _UNWRAPPED
        self.written: list[str] = []
        self._dropping: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._dropped:
            self._dropping.append(tag)
        if self._dropping or tag in self._skipped or not _is_name(tag):
            return
        kept = self._attributes(tag, attrs)
        if tag == "img" and not any(part.startswith("src=") for part in kept):
            self.written.append("<em>[an image that is not part of this page]</em>")
            return
        self.written.append(f"<{' '.join([tag, *kept])}>")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._dropping:
            if tag == self._dropping[-1]:
                self._dropping.pop()
            return
        if tag in self._open:  # closes what was left open in it, so nothing leaks out of it
            while (last := self._open.pop()) != tag:
                self.written.append(f"</{last}>")
            self.written.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._dropping:
            return
        inside = self._open[-1] if self._open else ""
        if inside == "style":
            self.written.append(self._style(data))
        elif inside == "script":
            self.written.append(self.wall.scrub(data, shapes=False))
        else:
            self.written.append(html.escape(plain(self.wall.scrub(data)), quote=False))

    def close(self) -> None:
        super().close()
        self.written += [f"</{tag}>" for tag in reversed(self._open)]
        self._open.clear()

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> list[str]:
        kept = []
        for name, value in attrs:
            text = value or ""
            if not self._is_kept(tag, name):
                continue
            if name in ("class", "id") and not self._ours:
                text = " ".join(word for word in text.split() if _STYLED.fullmatch(word))
            elif name == "style":
                text = self._style(text)
            elif name in _LOADS:
                address = self._address(tag, text)
                if address is None:
                    continue
                text = address
            else:
                text = plain(self.wall.scrub(text))
            if text or name not in ("class", "id"):
                kept.append(f'{name}="{html.escape(text)}"')
        return kept

    def _is_kept(self, tag: str, name: str) -> bool:
        if not _is_name(name) or name.startswith("on") or name in ("srcdoc", "ping", "nonce"):
            return False
        drawing = (tag == "svg" or "svg" in self._open) and not name.startswith("data-")
        return self._ours or drawing or name in _KEPT | _LOADS

    def _address(self, tag: str, text: str) -> str | None:
        """Return where a link leads, or a PNG's own data; None for what would be loaded."""
        if match := _PNG.fullmatch(text.strip()):
            try:
                bare = bare_png(base64.b64decode(match[1]))
            except binascii.Error:
                return None
            coded = base64.b64encode(bare).decode() if bare else None
            return coded and f"data:image/png;base64,{coded}"
        if tag == "a" and _LINKS.match(text):
            return plain(self.wall.scrub(text))
        return text if text.startswith("#") else None  # within an SVG

    def _style(self, text: str) -> str:
        text = re.sub(r"/\*.*?(?:\*/|$)", "", text, flags=re.S)
        text = re.sub(r"@import[^;]*;?", "", text, flags=re.I)
        text = re.sub(r"url\((?!\s*['\"]?(?:data:image/|#))[^)]*\)", "none", text, flags=re.I)
        return plain(self.wall.scrub(text)).replace("<", "")


def _is_name(name: str) -> bool:
    return bool(re.fullmatch(r"[a-zA-Z][\w:.-]*", name))
