"""The mesh's sizes as a configuration (imports no jax)."""

import dataclasses

AXES = ("data", "fsdp", "stage", "expert", "context", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; axes of size 1 cost nothing. `data = -1` takes the devices that the others leave.

    data     rows of the batch                       context  the sequence, attention included
    fsdp     rows of the batch, and every weight     tensor   heads, feed-forward width and vocabulary
    stage    layers, as a pipeline                   expert   nothing yet: `lm.sharding.make_mesh` refuses more than 1
    """

    data: int = -1
    fsdp: int = 1
    stage: int = 1
    expert: int = 1
    context: int = 1
    tensor: int = 1
