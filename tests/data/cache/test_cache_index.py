"""The index against a dictionary that does the same slowly."""

from __future__ import annotations

import random

import pytest

from neurotrain.data.cache.index import Index
from neurotrain.data.cache.layout import EntrySpec, TensorSpec
from neurotrain.data.cache.shard import Located, ShardInfo

SPECS = [EntrySpec((TensorSpec("a", "F32", (size,)),)) for size in (16, 32, 48)]


@pytest.mark.parametrize("seed", range(5))
def test_adding_and_removing_files_is_as_a_dictionary_does_it(seed: int) -> None:
    draw = random.Random(seed)
    # Few first halves, so that keys differ in the second half only, and keys that come again.
    keys = [draw.randrange(12).to_bytes(8) + draw.randrange(12).to_bytes(8) for _ in range(60)]
    keys += [draw.randbytes(16) for _ in range(60)]
    index, files = Index(), dict[str, dict[bytes, Located]]()
    for step in range(30):
        added: list[tuple[ShardInfo, list[Located]]] = []
        for part in range(draw.randrange(3)):
            name = f"{draw.randrange(1000):016x}-{step:08x}-{part:06x}.safetensors"
            chosen = draw.sample(keys, draw.randrange(1, 20))
            entries = [Located(k, draw.choice(SPECS), draw.randrange(2**32), 64 * draw.randrange(99)) for k in chosen]
            added.append((ShardInfo(name, 10**6, len(entries)), entries))
            files[name] = {entry.key: entry for entry in entries}
        index = index.with_shards(added)
        expected = {key: entry for name in sorted(files) for key, entry in files[name].items()}
        assert [index.key(row) for row in range(len(index))] == sorted(expected)
        assert all(index.located(index.find(key)) == entry for key, entry in expected.items())
        assert all(index.find(key) == -1 for key in set(keys) - expected.keys())
        assert {shard.name for shard in index.shards} == files.keys()
    # Removing a file does not bring back what it had replaced, but never loses what others hold alone.
    gone = set(draw.sample(sorted(files), len(files) // 2))
    left = index.without(gone)
    winners = {key: max(name for name in files if key in files[name]) for name in files for key in files[name]}
    assert {left.key(row) for row in range(len(left))} == {key for key, name in winners.items() if name not in gone}
    assert {shard.name for shard in left.shards} == files.keys() - gone


def test_what_was_checked_stays_checked_when_files_come() -> None:
    spec = SPECS[0]
    first = [Located(bytes([n] * 16), spec, 0, 64 * n) for n in range(0, 20, 2)]
    index = Index().with_shards([(ShardInfo(f"{1:016x}-{0:08x}-{0:06x}.safetensors", 10**6, 10), first)])
    index.is_checked[index.find(bytes([4] * 16))] = True
    second = [Located(bytes([n] * 16), spec, 0, 64 * n) for n in (1, 3, 6)]
    index = index.with_shards([(ShardInfo(f"{2:016x}-{0:08x}-{0:06x}.safetensors", 10**6, 3), second)])
    assert [index.key(row)[0] for row in range(len(index)) if index.is_checked[row]] == [4]
