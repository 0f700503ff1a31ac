"""A run's whole configuration (imports no jax)."""

import dataclasses
from typing import Literal, Optional, get_args

from lm.data.config import DataConfig
from lm.mesh import MeshConfig
from lm.model.config import AttentionKernel, ContextForm, ModelConfig
from lm.optim.config import OptimConfig

FallBack = Literal["older", "nothing"]  # what a run may go on from where its newest checkpoint is not sound
FALL_BACK: tuple[FallBack, ...] = get_args(FallBack)
Likelihood = Literal["text", "pairs"]
BadSteps = Literal["skip", "rewind", "stop"]
MEASURE: dict[Likelihood, str] = {"text": "nats_per_byte", "pairs": "nats_per_token"}  # the number by which an evaluation is judged
EXECUTION = {"part": "execution"}  # metadata of a field that says how a run is carried out and is no part of its identity


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The text on which held-out likelihood is measured, and the steps at which it is.

    Whole documents are read in strided windows, and nats are summed over all tokens. Where the objective makes pairs, the targets of as
    many rows as hold about the same bytes of text are scored, and only documents_bytes, curve_bytes and points_per_decade are read.
    """

    documents_bytes: int = 49_152  # bytes of whole validation documents for the final evaluation
    longest_document: Optional[int] = None  # skip documents of more bytes (many short ones give less noise than few long ones)
    curve_bytes: int = 8_192  # bytes of whole validation documents for each point of the loss curve
    points_per_decade: int = 8  # evaluations per factor of ten in steps, log-spaced; 0: only at the end
    stride: int = 64  # tokens scored per window; the rest of the window is context
    window_bytes: Optional[int] = None  # bytes per window, so that all tokenizers get the same context (default: data.sequence_length)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """The steps at which checkpoints are written. The last step always has one."""

    every_steps: Optional[int] = None  # steps between checkpoints (default: only the last step)
    keep: int = 2  # newest checkpoints to keep
    patience_minutes: float = 60.0  # how long training goes on without a new checkpoint while a full or failing disk takes none
    hang_minutes: float = 30.0  # end the process, with every thread's stack, when no step, evaluation or save ends for so long; 0: never


@dataclasses.dataclass(frozen=True)
class BadStepsConfig:
    """What a run does about a bad step: one whose loss or gradient is not finite, or is a spike. None changes weights or optimizer state.

    A run with too many of them has diverged. All this is part of what the run is, because it decides which text its weights have seen.
    """

    policy: BadSteps = "skip"  # leave the step out; go back to an earlier state and pass over the text since then; or end the run
    in_a_row: int = 5  # bad steps in a row (or returns to one state) with which the run has diverged
    share: float = 0.1  # share of the last `window` steps of which more may not be bad
    window: int = 100  # steps that `share` is of, and sound steps that a spike stands out from
    spike: Optional[float] = None  # deviations above the median of the window that make a spike (default: none is one)
    rewind_every: int = 100  # steps between the states that policy=rewind goes back to, each of them a checkpoint


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """The lines of metrics.jsonl."""

    every_steps: int = 50  # steps per line; a line holds the loss over all of them
    tensorboard: bool = True  # write TensorBoard event files too
    wandb: Optional[str] = None  # project of Weights & Biases that mirrors the metrics (needs the package wandb)
    layer_norms: bool = False  # log activation, gradient and update norms per layer


@dataclasses.dataclass(frozen=True)
class IntegrityConfig:
    """The checks for values that a device or its memory changed without an error. A run of fewer steps than `every_steps` has none.

    Copies that devices hold of one array are compared, before every checkpoint too. Repeated steps have to give the same bits.
    """

    every_steps: Optional[int] = 200  # steps between checks; none: no check
    replay_steps: Optional[int] = None  # steps before each check that are made again (default: 1 where no array has a copy, else 0)
    replay_elsewhere: bool = False  # make them again with every device in the place of its neighbour, which compiles the step once more


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """The way in which the step is compiled, and the splits of its arrays that the sizes of the mesh leave open."""

    micro_batches: int = 1  # gradient-accumulation micro-batches per step
    remat: Literal["none", "full", "dots", "dots_no_batch"] = "none"  # what the backward pass computes again instead of keeping
    unroll: bool = True  # unroll the scan over layers
    attention: AttentionKernel = "auto"  # attention kernel
    steps_per_dispatch: int = 1  # most steps per call from the host; more than 1 pays when a step takes a few milliseconds
    sequence_parallel: bool = False  # split the residual stream along the sequence over mesh.tensor
    context_attention: ContextForm = "gather"  # with mesh.context: gather all keys and values first, or pass them round in a ring
    pipeline_micro_batches: Optional[int] = None  # pipeline micro-batches per gradient-accumulation micro-batch (default: mesh.stage)
    pipeline_repeats: int = 1  # groups of layers per pipeline stage (interleaved schedule); more of them idle less
    shard_optimizer: bool = False  # split the optimizer state over mesh.data too (ZeRO-1)
    offload_optimizer: bool = False  # keep the optimizer state in the host's memory, where the backend has it


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The configuration of one training run. Fields tagged EXECUTION do not change what the run is."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    evaluation: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    train_tokens: int = 1_000_000  # token budget D, padding of padded rows included; rounded down to whole steps
    batch_size: int = 8  # rows per step
    seed: int = 0  # seed of the initial parameters and of the order of the data
    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # dtype of activations and of weights as layers read them
    z_loss: float = 0.0  # factor of log(Z)^2 in the training loss
    label_smoothing: float = 0.0  # share of each target's mass that is spread over the vocabulary
    bad_steps: BadStepsConfig = dataclasses.field(default_factory=BadStepsConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig, metadata=EXECUTION)
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig, metadata=EXECUTION)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig, metadata=EXECUTION)
    integrity: IntegrityConfig = dataclasses.field(default_factory=IntegrityConfig, metadata=EXECUTION)
    log: LogConfig = dataclasses.field(default_factory=LogConfig, metadata=EXECUTION)
    data_dir: str = dataclasses.field(default="runs/data", metadata=EXECUTION)  # directory of prepared corpora, tokenizers and token caches
    imported_from: Optional[str] = dataclasses.field(default=None, metadata=EXECUTION)  # run into which its weights were imported

    @property
    def likelihood(self) -> Likelihood:
        """The class of the run's held-out loss: the likelihood of whole documents ("text"), or of the objective's targets ("pairs").

        Losses are comparable within a class only, and those of pairs within one objective.
        """
        return self.data.objective.likelihood if self.model.architecture == "decoder" else "pairs"
