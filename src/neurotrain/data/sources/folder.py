"""A folder of files, local or in a bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from neurotrain.data.sources.captions import Captions
from neurotrain.data.sources.paired import PairedSource
from neurotrain.data.sources.patterns import KeyPattern
from neurotrain.storage.base import Storage


class FolderSource(PairedSource):
    """Image files of a storage, with the files and texts that belong to each.

    Patterns are those of :class:`~neurotrain.data.sources.patterns.KeyPattern`: ``images`` is a folder whose files are
    paired with those of other folders by their stem; ``{split}/images/{id}_photo.tif`` says more. A ``{label}`` in
    ``image`` gives labels, a ``{split}`` the column of that name.

    Args:
        name: of the source.
        storage: holds the files.
        image: pattern of the images.
        mask: pattern of their label masks; by label name for multilabel masks, which become fields ``mask/<name>``.
        valid: pattern of their validity masks.
        conditioning: patterns of further files by name (``control``, ``reference``, ...), which become fields
            ``conditioning/<name>``.
        captions: where captions come from; None: there are none.
        classes: names of the labels, in their order; None: those that are found, sorted.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: list the storage at each start; see :class:`~neurotrain.data.sources.indexed.IndexedSource`.
        dimensions: read each new image's header for ``width``, ``height`` and ``frames``.
        threads: objects that are read at once while the index is built.

    Raises:
        ValueError: if a pattern cannot be read, or holds a place that ``image`` has not.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="folder-example")
        >>> for key in ("images/a.png", "images/b.png", "masks/a.gif", "masks/b.gif"):
        ...     _ = storage.write(key, key.encode())
        >>> source = FolderSource(name="toy", storage=storage, image="images", mask="masks")
        >>> source.setup()
        >>> source.read(1).id, sorted(source.read(1).fields)
        ('b', ['image', 'mask'])
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        image: str = "{id}{ext}",
        mask: str | Mapping[str, str] | None = None,
        valid: str | None = None,
        conditioning: Mapping[str, str] | None = None,
        captions: Captions | None = None,
        classes: Sequence[str] | None = None,
        index_dir: Path | None = None,
        refresh: bool = True,
        dimensions: bool = False,
        threads: int = 8,
    ) -> None:
        masks = mask if isinstance(mask, Mapping) else {"": mask}
        texts = {
            "image": image,
            **{f"mask/{label}" if label else "mask": text for label, text in masks.items()},
            "valid": valid,
            **{f"conditioning/{key}": text for key, text in (conditioning or {}).items()},
        }
        super().__init__(
            name=name,
            storage=storage,
            patterns={
                field: KeyPattern(text, key=field, places=("id", "label", "split"))
                for field, text in texts.items()
                if text is not None
            },
            captions=captions,
            classes=classes,
            index_dir=index_dir,
            refresh=refresh,
            dimensions=dimensions,
            threads=threads,
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """``image`` and what is paired with it."""
        return super().fields
