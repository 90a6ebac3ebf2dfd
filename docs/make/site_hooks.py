"""What the documentation site adds to mkdocs: a file outside `docs/` that a page links to becomes a page of its own.

Links in the pages are plain relative links, so that a code host shows them, too. Here `../examples/wrap_torch.py`
becomes the page `source/examples/wrap_torch.py.md` of the site. A link to a file that does not exist fails the strict
build, and so does a public name whose docstring lacks something (`docs.make.docstrings`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docs.make.api_pages import api_page
from docs.make.docstrings import findings
from docs.make.public import MODULES

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
SHOWN = "source/"
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".txt": "text", "": "text"}

_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#:]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^(```+|~~~+).*?^\1$", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Warn of every public name that does not say what it must, which ends a strict build."""
    for finding in findings():
        get_plugin_logger("docstrings").warning(finding)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages about modules, and one for every file outside `docs/` that some page links to, directly or not."""
    for module in MODULES:
        files.append(File.generated(config, f"reference/{module}.md", content=api_page(module)))
    waiting = [(place_of(file.src_uri), file.content_string) for file in files.documentation_pages()]
    shown: set[str] = set()
    while waiting:
        place, text = waiting.pop()
        for target in targets(place, text):
            path = ROOT / target
            if target in shown or is_site_page(target, files) or not path.is_file():
                continue
            shown.add(target)
            content = path.read_text()
            page = content if path.suffix == ".md" else listing(target, content)
            uri = SHOWN + target.removesuffix(".md") + ".md"
            files.append(File.generated(config, uri, content=page, inclusion=InclusionLevel.NOT_IN_NAV))
            if path.suffix == ".md":
                waiting.append((target, content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the pages of the site."""
    here = page.file.src_uri
    place = place_of(here)

    def pointed(match: re.Match[str]) -> str:
        target = resolved(place, match[2])
        anchor = match[3] or ""
        if is_site_page(target, files):
            return f"{match[1]}({relative(target.removeprefix(DOCS), here)}{anchor})"
        uri = SHOWN + target.removesuffix(".md") + ".md"
        if files.get_file_from_path(uri) is None:
            # mkdocs says that there is no such file.
            return match[0]
        return f"{match[1]}({relative(uri, here)}{anchor})"

    return "".join(part if is_code else _LINK.sub(pointed, part) for part, is_code in parts(markdown))


def targets(place: str, text: str) -> Iterator[str]:
    """Paths from the repository's root of all files that a page links to."""
    for part, is_code in parts(text):
        if not is_code:
            for match in _LINK.finditer(part):
                yield resolved(place, match[2])


def parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether it is a block of code."""
    at = 0
    for match in _CODE.finditer(text):
        yield text[at : match.start()], False
        yield match[0], True
        at = match.end()
    yield text[at:], False


def place_of(uri: str) -> str:
    """Where a page of the site stands in the repository."""
    if not uri.startswith(SHOWN):
        return DOCS + uri
    path = uri.removeprefix(SHOWN)
    return path if (ROOT / path).is_file() else path.removesuffix(".md")


def resolved(place: str, link: str) -> str:
    """A link of the page at `place`, as a path from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def relative(uri: str, here: str) -> str:
    """The link from one page of the site to another."""
    return posixpath.relpath(uri, posixpath.dirname(here) or ".")


def is_site_page(target: str, files: Files) -> bool:
    """Whether a path of the repository is a page or picture of the site by itself."""
    return target.startswith(DOCS) and files.get_file_from_path(target.removeprefix(DOCS)) is not None


def listing(path: str, text: str) -> str:
    """A file of code as a page."""
    fence = "~" * max(3, 1 + max((len(run) for run in re.findall(r"~+", text)), default=0))
    return f"# `{path}`\n\n{fence}{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n{fence}\n"


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Name the search dialog, which the theme leaves without one, for whoever listens to the page."""
    return output.replace(
        'data-md-component="search" role="dialog"',
        'data-md-component="search" role="dialog" aria-label="Search"',
    )
