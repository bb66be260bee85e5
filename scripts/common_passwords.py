"""Write the list of common and breached passwords anew: `python scripts/common_passwords.py DJANGO.whl ZXCVBN.whl`.

Sources, as `pip download --no-deps django zxcvbn` fetches them: Django's `common-passwords.txt` (BSD licence) and the
passwords of zxcvbn's `frequency_lists.py` (MIT licence). Kept is what somebody could choose here at all: entries of
eight characters or more, folded as `lingpai.identity.passwords.common` folds what it compares with them. The licences are in
`common-passwords.LICENSE.txt` beside the list.
"""

import ast
import gzip
import lzma
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lingpai.identity.passwords.common import LIST, folded

SHORTEST = 8


def of_django(wheel: Path) -> Iterator[str]:
    """The 20,000 passwords that Django refuses."""
    content = zipfile.ZipFile(wheel).read("django/contrib/auth/common-passwords.txt.gz")
    yield from gzip.decompress(content).decode().splitlines()


def of_zxcvbn(wheel: Path) -> Iterator[str]:
    """The 30,000 passwords that zxcvbn knows as common: `"passwords": "…,…".split(",")` in a file that is not run here."""
    tree = ast.parse(zipfile.ZipFile(wheel).read("zxcvbn/frequency_lists.py"))
    lists = next(node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    for name, value in zip(lists.keys, lists.values, strict=True):
        if isinstance(name, ast.Constant) and name.value == "passwords":
            texts = (node.value for node in ast.walk(value) if isinstance(node, ast.Constant))
            yield from max(map(str, texts), key=len).split(",")


def main() -> None:
    """Write the list: sorted, one per line, a line break at both ends."""
    django, zxcvbn = map(Path, sys.argv[1:3])
    words = {folded(word.strip()) for word in (*of_django(django), *of_zxcvbn(zxcvbn))}
    kept = sorted(word for word in words if len(word) >= SHORTEST)
    with LIST.open("wb") as file:
        file.write(lzma.compress("\n".join(["", *kept, ""]).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(kept)} passwords")


if __name__ == "__main__":
    main()
