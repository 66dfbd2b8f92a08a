"""A teacher's trajectories on disk: noise, the states at a student's times, and where each one ends.

A cache is a folder ``<key>`` of shards. The key names everything that the numbers depend on, so another teacher,
schedule, guidance or seed is another folder. A shard is complete or absent; shards are dealt out to the ranks, so any
number of ranks fills, and reads, the same cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neurotrain.diffusion import RoleView
from neurotrain.noise import Solver, initial_state, solver

_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class TrajectoryKey:
    """What a cache of trajectories depends on.

    Attributes:
        teacher: fingerprint of its weights, and how they are used.
        schedule: of the noise, as it prints.
        data: fingerprint of what the family shares: data, encoders.
        shape: of a latent.
        times: at which the student is called, falling.
        guidance: scale of the teacher's guidance.
        sampler: solver of the teacher.
        steps: of the teacher.
        count: trajectories in all.
        shard: trajectories a file.
        seed: of the noise.
    """

    teacher: str
    schedule: str
    data: str
    shape: tuple[int, ...]
    times: tuple[float, ...]
    guidance: float
    sampler: Solver
    steps: int
    count: int
    shard: int
    seed: int

    @property
    def digest(self) -> str:
        """Name of the folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def shards(self) -> int:
        """Number of files."""
        return -(-self.count // self.shard)


class TrajectoryCache:
    """Trajectories of one key.

    Args:
        root: folder of all caches.
        key: what the trajectories depend on.
    """

    def __init__(self, *, root: Path, key: TrajectoryKey) -> None:
        self.key = key
        self.folder = Path(root) / key.digest

    def missing(self) -> list[int]:
        """Shards that are not there yet."""
        return [index for index in range(self.key.shards) if not self._path(index).is_file()]

    def fill(self, make: Callable[[int, int], Mapping[str, Tensor]], *, rank: int, world_size: int) -> int:
        """Make the missing shards that fall to a rank.

        Args:
            make: tensors of a shard from its index and length.
            rank: of this process.
            world_size: number of processes.

        Returns:
            Shards made.
        """
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / _MANIFEST, json.dumps(asdict(self.key), indent=1).encode())
        own = [index for index in self.missing() if index % world_size == rank]
        for index in own:
            length = min(self.key.shard, self.key.count - index * self.key.shard)
            path = self._path(index)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            save_file({name: value.cpu().contiguous() for name, value in make(index, length).items()}, temporary)
            temporary.replace(path)
        return len(own)

    def read(self) -> dict[str, Tensor]:
        """All trajectories, in the order of their shards.

        Raises:
            FileNotFoundError: if shards are missing.
        """
        from safetensors.torch import load_file

        if missing := self.missing():
            raise FileNotFoundError(f"{self.folder}: {len(missing)} of {self.key.shards} shards are missing")
        shards = [load_file(self._path(index)) for index in range(self.key.shards)]
        return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}

    def _path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}-of-{self.key.shards:05d}.safetensors"


def follow(
    view: RoleView,
    noise: Tensor,
    condition: Mapping[str, Tensor],
    *,
    times: tuple[float, ...],
    steps: int,
    sampler: Solver,
    guidance: float,
) -> dict[str, Tensor]:
    """Follow a teacher from noise, and keep the states at a student's times and the end.

    Args:
        view: of the teacher.
        noise: standard normal ``(B, *shape)``.
        condition: by channel.
        times: of the student, falling, the last state behind them being the data.
        steps: of the teacher in all, spread over the intervals by their length.
        sampler: solver.
        guidance: scale of classifier-free guidance.

    Returns:
        ``states`` ``(B, len(times), *shape)``, ``end`` ``(B, *shape)``, and the condition as ``condition/<channel>``.
    """
    schedule = view.context.schedule

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return view.predict_x0(x_t, t, condition, guidance=guidance)

    state = initial_state(noise, torch.tensor(times[0], device=noise.device), schedule)
    states: list[Tensor] = []
    with torch.no_grad():
        for here, there in zip(times, (*times[1:], 0.0), strict=True):
            states.append(state)
            inner = max(1, round(steps * (here - there) / times[0]))
            grid = torch.linspace(here, there, inner + 1, dtype=torch.float64)
            state = solver(sampler)(denoise, state, grid, schedule)
    kept = {f"condition/{name}": value for name, value in condition.items()}
    return {"states": torch.stack(states, 1), "end": state, **kept}


def weights_fingerprint(module: nn.Module) -> str:
    """Digest of all parameters and persistent buffers, and of the module's class."""
    digest = hashlib.blake2b(type(module).__qualname__.encode(), digest_size=16)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
