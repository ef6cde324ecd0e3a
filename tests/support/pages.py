"""The code and the commands that the pages of the documentation show."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.M | re.S)


def shell(page: Path) -> list[str]:
    """The commands of a page's shell blocks, continued lines joined, comments cut."""
    blocks = [text for kind, _, text in BLOCK.findall(page.read_text()) if kind in ("sh", "bash")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"(^|\s)#\s.*", "", line).strip() for line in lines]
