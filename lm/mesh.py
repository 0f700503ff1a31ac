"""The sizes of the device mesh, as a configuration (imports no jax)."""

import dataclasses

AXES = ("data", "fsdp", "stage", "expert", "context", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The number of devices along each axis of the mesh. An axis of size 1 costs nothing."""

    data: int = -1  # splits the rows of the batch; -1 takes the devices that the other axes leave
    fsdp: int = 1  # splits the rows of the batch and every weight (fully sharded data parallelism)
    stage: int = 1  # splits the layers, as a pipeline
    expert: int = 1  # splits nothing yet: more than 1 is refused
    context: int = 1  # splits the sequence, also in attention
    tensor: int = 1  # splits heads, feed-forward width and vocabulary
