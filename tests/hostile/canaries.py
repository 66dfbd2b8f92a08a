"""What an attack would leave behind."""

from __future__ import annotations

import os
from pathlib import Path


class Canary:
    """A file that no attack may make appear; what unpickles the object makes it.

    Attributes:
        path: of the file.
        command: for a shell, that makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.command = f"touch {path}"

    def __reduce__(self) -> tuple[object, ...]:
        """Run the command."""
        return os.system, (self.command,)
