"""A parser that finds what a self-contained page must not have."""

from __future__ import annotations

from html.parser import HTMLParser

EVIL = "<script>alert(\"x\")</script><img src=http://evil.example/a.png onerror='x'>&"


class Page(HTMLParser):
    """What a browser would load or run, the nesting of tags, and the text."""

    VOID = ("meta", "br", "img", "link", "input", "hr")
    SVG = ("rect", "path", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(str(text))  # not Markup, which escapes what is added to it
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(text: str) -> Page:
    """Well nested, and nothing in it reaches outside."""
    page = Page(text)
    assert not page.open
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "srcset", "xlink:href") for name in attributes), tag
        assert tag == "a" or "href" not in attributes
    assert "@import" not in text and "url(" not in text
    return page
