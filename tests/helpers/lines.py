# SPDX-License-Identifier: GPL-2.0-only
"""Lines of code of each folder of the package: what is left without blanks, comments, docstrings.

python tests/helpers/lines.py [DIRECTORY]
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "analysis" / "anonvma"
_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def docstrings(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the strings that stand alone: of a module, class or function, or below a name."""
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for statement in body if isinstance(body, list) else []:
            match statement:
                case ast.Expr(value=ast.Constant(value=str())):
                    yield statement


def of_code(file: Path) -> int:
    """Return how many lines of a file have code on them."""
    with file.open("rb") as stream:
        found = {
            line
            for token in tokenize.tokenize(stream.readline)
            if token.type not in _NO_CODE
            for line in range(token.start[0], token.end[0] + 1)
        }
    for each in docstrings(ast.parse(file.read_bytes())):
        found -= set(range(each.lineno, (each.end_lineno or each.lineno) + 1))
    return len(found)


def main(directory: Path) -> None:
    """Print the lines of each folder, and of all."""
    counts: Counter[str] = Counter()
    for file in directory.rglob("*.py"):
        counts[file.relative_to(directory).parts[0]] += of_code(file)
    for name, count in sorted(counts.items()):
        print(f"{count:7,} {name}")
    print(f"{counts.total():7,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
