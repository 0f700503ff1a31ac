"""A run's whole configuration (imports no jax)."""

import dataclasses
from typing import Literal, Optional

from lm.data.config import DataConfig
from lm.mesh import MeshConfig
from lm.model.config import AttentionKernel, ContextForm, ModelConfig
from lm.optim.config import OptimConfig

Likelihood = Literal["text", "pairs"]
MEASURE: dict[Likelihood, str] = {"text": "nats_per_byte", "pairs": "nats_per_token"}  # what an evaluation is judged by
EXECUTION = {"part": "execution"}  # metadata of a field that says how a run is carried out and is no part of its identity


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Held-out likelihood: of whole documents in strided windows, nats summed over all tokens; or, where the objective makes pairs, of the
    targets of as many rows as hold about the same bytes of text (then only the first, third and fourth fields are read)."""

    documents_bytes: int = 49_152  # whole validation documents, in a fixed order, until this many bytes
    longest_document: Optional[int] = None  # documents of more bytes are passed over: many short ones give less noise than few long ones
    curve_bytes: int = 8_192  # the same, for the points of the loss curve
    points_per_decade: int = 8  # evaluations at log-spaced steps
    stride: int = 64  # tokens scored per window; the rest of the window is context
    window_bytes: Optional[int] = None  # windows of about this many bytes, so that tokenizers get the same context; None: sequence_length


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written; the last step always is."""

    every_steps: Optional[int] = None
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class LogConfig:
    every_steps: int = 50
    tensorboard: bool = True
    layer_norms: bool = False  # activation, gradient and update norms per layer


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """How the step is compiled, and how its arrays are split beyond what the sizes of the mesh say."""

    micro_batches: int = 1
    remat: Literal["none", "full", "dots", "dots_no_batch"] = "none"
    unroll: bool = True  # unroll the scan over layers
    attention: AttentionKernel = "auto"
    steps_per_dispatch: int = 1  # up to this many steps run per call from the host; pays when a step takes a few milliseconds
    sequence_parallel: bool = False  # residual stream split over mesh.tensor along the sequence, between what tensor parallelism splits
    context_attention: ContextForm = "gather"  # of mesh.context: keys and values all gathered first, or passed round in a ring
    pipeline_micro_batches: Optional[int] = None  # of mesh.stage, of each micro-batch; None: as many as stages
    pipeline_repeats: int = 1  # groups of layers per stage (the interleaved schedule); more of them idle less
    shard_optimizer: bool = False  # optimizer state split over mesh.data too (ZeRO-1)
    offload_optimizer: bool = False  # optimizer state in the host's memory, where the backend has it


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run. Fields tagged EXECUTION do not change what the run is."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    evaluation: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    train_tokens: int = 1_000_000  # D, with the padding of padded rows; whole steps only, rounded down
    batch_size: int = 8  # sequences
    seed: int = 0  # of the initial parameters and of the order of the data
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    z_loss: float = 0.0
    label_smoothing: float = 0.0  # share of each target's mass that is spread over the vocabulary
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig, metadata=EXECUTION)
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig, metadata=EXECUTION)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig, metadata=EXECUTION)
    log: LogConfig = dataclasses.field(default_factory=LogConfig, metadata=EXECUTION)
    data_dir: str = dataclasses.field(default="runs/data", metadata=EXECUTION)  # prepared corpora, tokenizers and token caches

    @property
    def likelihood(self) -> Likelihood:
        """What its held-out loss is a likelihood of: all the text of whole documents, or the targets of the objective's pairs.

        Losses are comparable within a class only, and those of pairs within one objective.
        """
        return self.data.objective.likelihood if self.model.architecture == "decoder" else "pairs"
