"""Makes the docstrings of the code, which are written to be read there, ready for the site."""

import re
import textwrap

import griffe

APART = re.compile(r"\n(?=(Args|Returns|Raises|Yields):\n|Source: )")
SECTION = re.compile(r"(Args|Returns|Raises|Yields):\n")
COLUMNS = re.compile(r"( *)\S.*? {3,}\S")  # words in columns, to be shown as they are
REFERENCE = re.compile(r"(\] ?)\[")
COMMENT = re.compile(r"  # (.+)$")


class Docstrings(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = prepared(obj.docstring.value)

    def on_attribute_instance(self, *, attr, **_):
        """The comment behind a field or a constant is what is said about it."""
        if not attr.docstring and attr.lineno and (comment := COMMENT.search(attr.lines[0])):
            attr.docstring = griffe.Docstring(prose(comment[1]), parent=attr)


def prepared(text: str) -> str:
    """Sections and sources stand apart; examples and columns become blocks."""
    return "\n\n".join(paragraph(part) for part in APART.sub(r"\n\n", text).split("\n\n"))


def paragraph(text: str) -> str:
    if SECTION.match(text):
        title, body = text.split("\n", 1)
        return f"{title}\n{prose(body if body.startswith(' ') else textwrap.indent(body, '    '))}"
    if text.startswith(">>> "):
        return f"```pycon\n{text}\n```"
    if text.startswith("Source: "):
        return prose(text.replace("Source:", "*Source:*", 1))
    columns = [match for line in text.splitlines() if (match := COLUMNS.match(line))]
    if not columns:
        return prose(text)
    block = re.compile(rf"(?:^{columns[0][1]}(?! ).*\n?)+", re.M)  # all that is indented as they are
    return block.sub(lambda match: f"\n```text\n{textwrap.dedent(match[0]).rstrip()}\n```\n\n", text).strip("\n")


def prose(text: str) -> str:
    """Outside of code, angle brackets are no HTML, and two shapes in a row are no link."""
    parts = text.split("`")
    parts[::2] = [REFERENCE.sub(r"\1\\[", part.replace("<", "&lt;")) for part in parts[::2]]
    return "`".join(parts)
