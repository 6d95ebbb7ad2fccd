"""Puts the documents of the repository's root on the site, with links that work on a forge and here.

A link to a page of the site leads there, a link to any other file of the repository becomes plain text, and a link to a
file that does not exist is a warning, which `mkdocs build --strict` does not accept.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {  # in the repository: on the site
    "README.md": "index.md",
    "PROTOCOL.md": "protocol.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LOG.md": "log.md",
    "semcast/weights/small/MODEL_CARD.md": "model-card.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
LINK = re.compile(r"\[([^\]]*)\]\(([^()\s#:]+)(#[^()\s]*)?\)")  # [text](path#anchor); no URL has a path without a colon
ITEM = r"[-*] |\d+\. "
CROWDED = re.compile(rf"^((?![|#<>:\s]|{ITEM}).*\n)(?=\||{ITEM})", re.M)  # text, and a list or table right below it
NESTED = re.compile(rf"^ {{2,3}}(?={ITEM})", re.M)
log = logging.getLogger("mkdocs.hooks")


def on_files(files, config):
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, **_):
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def resolve(match):
        text, path, anchor = match.groups(default="")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / target).exists():
            log.warning(f"{source} links to {path}, which does not exist")
        elif target not in PAGES and not target.startswith("docs/"):
            return text
        there = PAGES.get(target, target.removeprefix("docs/"))
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{anchor})"

    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(resolve, spaced(part)) for part in parts[::2]]
    return "".join(parts)


def spaced(text):
    """As Python's Markdown wants it: a blank line above lists and tables, four spaces before what is nested."""
    return NESTED.sub("    ", CROWDED.sub(r"\1\n", text))
