"""Text that a terminal may be given.

Whoever looks at a VM looks at what a hostile guest says, at what other users call their things, and at what a server
answers; and a terminal obeys what it is told: C0 and C1 controls, escape sequences, DEL, and marks that turn the
direction of writing. All that is printed as text passes here, through `output`; what a command passes on as bytes
(exec, shell, file cat, cp to stdout) does not.
"""

import re

_REPLACED = "\N{REPLACEMENT CHARACTER}"

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
"""Of what was meant for a terminal already, as a console is; see ECMA-48, SGR."""


def printable(text: str) -> str:
    """The text without what a terminal would obey, tabs and line ends apart. A serial console ends lines with CR LF.

    Python's idea of printable leaves out all of Unicode's categories Other and Separator, blanks apart: controls, marks
    of direction, lone surrogates, line and paragraph separators."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\t\n" else _REPLACED for char in text)


def one_line(text: str) -> str:
    """The same for what is part of a line: it can't begin another, nor reach into the next column."""
    return printable(text).replace("\n", _REPLACED).replace("\t", _REPLACED)


def indented(text: str) -> str:
    """Further lines behind the first one, so that they pass for nothing of ours."""
    return printable(text).replace("\n", "\n    ")


def without_colours(text: str) -> str:
    """What is left of a console's text when nobody draws it."""
    return printable(_COLOURS.sub("", text))


def escaped(json: str) -> str:
    r"""JSON in which everything of that kind is spelled \uXXXX: the same to who reads it by program."""
    if json.isascii() and "\x7f" not in json:
        return json
    return "".join(char if char.isprintable() or char in "\t\n" else _escape(char) for char in json)


def _escape(char: str) -> str:
    data = char.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{data[at] << 8 | data[at + 1]:04x}" for at in range(0, len(data), 2))
