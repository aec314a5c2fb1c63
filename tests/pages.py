"""The pages of the documentation as tests read them: fenced blocks, the commands in them, and what these print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"])
FENCED = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?P<about>[^\n]*)\n(?P<text>.*?)^(?P=indent)```", re.M | re.S)
SUBSTITUTED = re.compile(r"\$\(([^)]*)\)")
ASSIGNED = re.compile(r"[A-Za-z_]+=")
PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: `number` counts them, `title` is the file that it shows, where it says so."""

    page: Path
    number: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.number}"


@dataclass(frozen=True)
class Command:
    """A line for a shell, and what the page shows that it prints."""

    block: Block
    line: str
    output: str = ""

    def parts(self) -> Iterator[list[str]]:
        """The programs that the line calls, with their arguments; what `$(...)` gives is the word `given`."""
        for line in [SUBSTITUTED.sub("given", self.line), *SUBSTITUTED.findall(self.line)]:
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word.strip("|&;"):
                    words.append(word)
                elif words:
                    yield words
                    words = []


def blocks(*languages: str, page: Path | None = None) -> Iterator[Block]:
    """Every fenced block of all pages or of one, in these languages or in any."""
    for one in PAGES if page is None else [page]:
        for number, found in enumerate(FENCED.finditer(one.read_text(encoding="utf-8")), start=1):
            if not languages or found["language"] in languages:
                title = re.search(r'title="([^"]*)"', found["about"])
                text = re.sub(f"^{found['indent']}", "", found["text"], flags=re.M)
                yield Block(one, number, found["language"], title[1] if title else "", text)


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block: of one in `sh` all lines, of one without a language those after a prompt."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    if block.language == "sh":
        yield from (Command(block, line) for line in text.splitlines() if line and not line.startswith("#"))
    elif not block.language:
        for shown in re.split(rf"^{re.escape(PROMPT)}", text, flags=re.M)[1:]:
            line, _, output = shown.partition("\n")
            yield Command(block, line, output)


def called(words: list[str]) -> list[str]:
    """A program and its arguments, without variables before it, without its folder, and without `kubectl` as a door."""
    rest = list(words)
    while rest and ASSIGNED.match(rest[0]):
        del rest[0]
    if not rest:
        return []
    program = [Path(rest[0]).name, *rest[1:]]
    return program[1:] if program[:2] == ["kubectl", "almanac"] else program
