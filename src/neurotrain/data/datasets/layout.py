"""Finding the files of a layout and pairing them by id, every irregularity reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from neurotrain.data.datasets.base import Scan
from neurotrain.data.datasets.decoding import EXTENSIONS


def find(scan: Scan, folder: Path, *templates: str, ids: str = r"\d+") -> dict[str, Path]:
    """Files of one folder by id.

    Args:
        scan: told of an absent folder, and of two files that claim one id.
        folder: looked at without its subfolders; hidden files are left out.
        templates: file names with ``{id}``, and ``{ext}`` for any image extension; upper and lower case are alike.
            A file that fits an earlier template is preferred over one that fits a later one.
        ids: regular expression of an id.

    Returns:
        Path of each id, sorted by id.

    Example:
        >>> find(Scan(), Path("/nowhere"), "{id}_test.tif")
        {}
    """
    if not folder.is_dir():
        scan.report("missing", folder, f"no such folder; it should hold {_shown(templates[0], '*')}")
        scan.problems.insert(0, scan.problems.pop())  # explains more than any file: first in the message
        return {}
    names = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found: dict[str, Path] = {}
    for template in templates:
        pattern, here = _compiled(template, ids), dict[str, Path]()
        for path in names:
            match = pattern.fullmatch(path.name)
            if match is None:
                continue
            key = match["id"]
            if key in here:
                scan.report("duplicate", path, f"claims the id {key!r} of {here[key].name}")
            here.setdefault(key, path)
        found = here | found
    return dict(sorted(found.items()))


def attach(
    scan: Scan,
    images: Mapping[str, Path],
    folder: Path,
    *templates: str,
    what: str,
    ids: str = r"\d+",
    optional: bool = False,
) -> dict[str, Path]:
    """Find the files that belong to ``images``, one each.

    Args:
        scan: told of an absent folder, of images without such a file and of such files without an image.
        images: paths by id.
        folder: as in :func:`find`.
        templates: as in :func:`find`.
        what: such a file in words, for messages.
        ids: as in :func:`find`.
        optional: an absent folder, or one without any such file, is no problem.

    Returns:
        Path of each id that is in ``images``.
    """
    if not images or (optional and not folder.is_dir()):
        return {}
    others = find(scan, folder, *templates, ids=ids)
    if not folder.is_dir() or (optional and not others):
        return {}
    for key in sorted(images.keys() - others.keys()):
        scan.report("missing", folder / _shown(templates[0], key), f"no {what} of image {key!r}")
    for key in sorted(others.keys() - images.keys()):
        scan.report("unpaired", others[key], f"{what} without an image {key!r}")
    return {key: path for key, path in others.items() if key in images}


def _shown(template: str, key: str) -> str:
    return template.replace("{id}", key).replace("{ext}", ".*")


def _compiled(template: str, ids: str) -> re.Pattern[str]:
    extensions = "|".join(re.escape(extension) for extension in sorted(EXTENSIONS))
    pattern = re.escape(template).replace(re.escape("{id}"), f"(?P<id>{ids})")
    return re.compile(pattern.replace(re.escape("{ext}"), f"(?:{extensions})"), re.IGNORECASE)
