"""How processes share a training out among each other."""

from neurotrain.strategies.distributed_native import consolidate_distributed
from neurotrain.strategies.replicated import ReplicatedStrategy
from neurotrain.strategies.sharded import ShardedStrategy
from neurotrain.strategies.tensor_parallel import TensorParallelStrategy
from neurotrain.strategies.zero import ZeroStrategy
from neurotrain.strategies.zero_native import consolidate_zero

__all__ = [
    "ReplicatedStrategy",
    "ShardedStrategy",
    "TensorParallelStrategy",
    "ZeroStrategy",
    "consolidate_distributed",
    "consolidate_zero",
]
