"""The recipe: everything that defines a training job, one section per stage.

The only place with defaults, together with the sections that are used by themselves too: `data` in
data.py, `evaluate` in decoding.py, `registry.gate` in rules.py. None of them imports what is heavy,
so that a mistake is answered in well under a second, before torch or Ray are loaded. Lengths are in
tokens, durations in optimizer steps.
"""

import hashlib
import json
import re
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from heliograph.pipeline.request.data import Data, Section
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.request.rules import DEFAULT_GATE, Gate

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class Tokenizer(Section):
    """One vocabulary for both sides (section 5.1 of the paper), so that embeddings are tied."""

    kind: Literal["bpe", "unigram"] = "bpe"
    """bpe: byte-pair encoding. unigram: Kudo (2018). Both over bytes, hence reversible."""
    vocabulary_size: int = Field(8000, ge=300)
    """Tokens, special ones included. A small corpus may yield fewer."""
    training_pairs: int = Field(1_000_000, ge=1)
    """Trained on this many pairs, taken evenly over the corpus."""


class Augment(Section):
    """Robustness: words are cut into other tokens each time they are seen in training. The draws
    follow from the seed, so that a resumed job sees what an undisturbed one does."""

    bpe_dropout: Rate = 0.0
    """Provilkov et al. (2020): each merge of a word's tokens is left out with this probability;
    0.1 is usual. For tokenizer.kind bpe."""
    unigram_alpha: float | None = Field(None, gt=0)
    """Kudo (2018): a word's tokenization is drawn with probability ∝ (its likelihood) ** alpha; 0.2
    is usual, less is wilder. For tokenizer.kind unigram. None: always the likeliest."""


class Batches(Section):
    """How the stream is cut into optimizer steps; see docs/ARCHITECTURE.md, "The step list"."""

    tokens_per_micro_batch: int = Field(4096, ge=16)
    """Memory per device: pairs × the longest side among them, in tokens, never exceeds this."""
    tokens_per_step: int = Field(8192, ge=16)
    """The same, summed over a step's micro-batches on all workers: the paper's is about 25,000."""
    piece_rows: int = Field(512, ge=1)
    """Consecutive rows of the corpus that are read together; the epoch shuffles pieces."""
    window_pieces: int = Field(32, ge=1)
    """Pieces whose rows are shuffled, sorted by length and cut into steps together."""


class Model(Section):
    """The Transformer's sizes, sections 3 and 5.4 of the paper; the defaults are its base model."""

    width: int = Field(512, ge=2)
    """d_model."""
    heads: int = Field(8, ge=1)
    """h; a head is width / heads wide, 64 in the paper."""
    encoder_layers: int = Field(6, ge=1)
    decoder_layers: int = Field(6, ge=1)
    feed_forward: int = Field(2048, ge=1)
    """d_ff, the inner width of the position-wise networks."""
    dropout: Rate = 0.1
    """On each sub-layer's output."""
    attention_dropout: Rate = 0.1
    """On the attention weights."""
    embedding_dropout: Rate = 0.1
    """On the sum of embeddings and positions."""
    norm: Literal["post", "pre"] = "post"
    """post: as published. pre: inside the residual branch, steadier for deep stacks."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Model":
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"width {self.width} must be even and a multiple of heads={self.heads}"
            )
        return self


class Train(Section):
    """Optimization: AdamW with warm-up and inverse square root decay, section 5.3."""

    epochs: int | None = Field(None, ge=1)
    """Stop after this many passes over the corpus; at least one of epochs and steps is set."""
    steps: int | None = Field(None, ge=1)
    """Stop after this many optimizer steps."""
    learning_rate: float | None = Field(None, gt=0)
    """Reached at the end of warm-up. None: the paper's (width × warmup_steps) ** -0.5."""
    warmup_steps: int = Field(4000, ge=1)
    betas: tuple[Rate, Rate] = (0.9, 0.98)
    epsilon: float = Field(1e-9, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, ge=0)
    """Gradients are scaled to at most this L2 norm; 0 never clips."""
    label_smoothing: Rate = 0.1
    """Section 5.4: this much probability is spread evenly over the vocabulary."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on GPUs that have it, float32 elsewhere."""
    deterministic: bool = False
    """On GPUs: the same sums in the same order in each run, so that a resumed job comes to the same
    weights to the last bit, as it always does on CPUs. Slower, by torch's choice of kernels."""
    compile: bool = False
    """Have torch compile the layers, for training only, which each start begins with (a minute on
    two cores) and which needs a C++ compiler on each node. Made for GPUs; on CPUs it is slower.
    `benchmarks/train.py --compile` says what it is worth on a device."""
    checkpoint_steps: int = Field(1000, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(3, ge=1)
    """The newest this many are kept."""
    keep_best: int = Field(1, ge=1)
    """And this many of the best, by `validation.metric`."""
    max_skipped_steps: int = Field(10, ge=0)
    """A step whose gradient is not finite changes nothing and is counted. After more than this many
    in a row the job stops."""
    average_checkpoints: int = Field(0, ge=0)
    """Evaluate and register the mean of the last this many checkpoints' weights (section 6.1), if
    that scores higher on validation than the best single one. 0: never."""

    @model_validator(mode="after")
    def _has_an_end(self) -> "Train":
        if self.epochs is None and self.steps is None:
            raise ValueError("set epochs or steps (or both: the first reached ends training)")
        if self.average_checkpoints > self.keep_checkpoints:
            raise ValueError(
                f"average_checkpoints {self.average_checkpoints} needs keep_checkpoints of at "
                f"least as many, not {self.keep_checkpoints}"
            )
        return self


class Validation(Section):
    """What is measured on the validation set while training runs."""

    every_steps: int = Field(1000, ge=1)
    """Steps between validations; the last step is always validated."""
    sentences: int | None = Field(None, ge=1)
    """BLEU on the first this many pairs. None: on all of them."""
    beam: int = Field(1, ge=1)
    """1 is greedy: much cheaper than the final evaluation, and it ranks checkpoints alike."""
    metric: Literal["bleu", "chrf", "loss", "exact_match"] = "bleu"
    """Which decides what checkpoint is best, and what is better. exact_match: translated to the
    letter, for targets that are no prose."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many validations without a better one. None: never."""


class Track(Section):
    """What goes to MLflow. The server's address is MLFLOW_TRACKING_URI, as everywhere."""

    experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """None: that of MLFLOW_EXPERIMENT_NAME, else "heliograph"."""
    every_steps: int = Field(1, ge=1)
    """Steps between logged training metrics; sums and means cover all steps in between."""
    samples: int = Field(20, ge=0)
    """Validation sentences in the table of sample translations."""
    attention_sentences: int = Field(3, ge=0)
    """Validation sentences whose cross-attention is drawn, head by head; of a long one the
    beginning."""


def _for_a_uri(name: str) -> str:
    """What MLflow and models:/NAME@ALIAS can hold."""
    if not name.strip() or name != name.strip() or (found := set(name) & set("/:@'\"\\%?#`")):
        what = " ".join(sorted(found)) if name.strip() == name and name else "spaces at its ends"
        raise ValueError(f"must be a name without {what}, as in models:/NAME@champion")
    if not name.isprintable():
        raise ValueError("must be a name of printable characters, as in models:/NAME@champion")
    return name


class Registry(Section):
    """The registered model that a finished run becomes a version of."""

    name: Annotated[str, AfterValidator(_for_a_uri), Field(max_length=200)] | None = None
    """None: the recipe's name."""
    gate: Gate = DEFAULT_GATE
    """The rules, all of which a version must pass to become champion; see `request.rules`."""
    promote: bool = False
    """Ask the gate for promotion at the end of training."""


Statement = Annotated[str, Field(min_length=1, max_length=500)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]


class Card(Section):
    """What the model card of each version says and nothing else knows. What is left out here the
    card calls "not stated": nothing is guessed."""

    languages: tuple[Language, Language] | None = None
    """The source's and the target's, as ISO 639 codes: [en, de]."""
    license: Statement | None = None
    """The model's, as SPDX writes it: Apache-2.0."""
    data_license: Statement | None = None
    """The training data's, likewise."""
    contact: Statement | None = None
    """Whom to ask about the model."""
    notes: Annotated[str, Field(min_length=1, max_length=5000)] | None = None
    """What else is to be known: intended use, limits, known faults."""


def _is_label_condition(value: str) -> str:
    if not re.fullmatch(r"!?([a-zA-Z0-9][\w.-]*|in\([\w.-]+(, ?[\w.-]+)*\))", value):
        raise ValueError("must be VALUE, !VALUE, in(A, B) or !in(A, B)")
    return value


Labels = dict[str, Annotated[str, AfterValidator(_is_label_condition)]]
"""Which nodes, by their labels, as Ray's label selectors say it: {market: on-demand}, {market:
"!spot"}, {zone: "in(a, b)"}."""


class Cluster(Section):
    """What the job asks of Ray. RAY_ADDRESS names the cluster; without one Ray starts here, and
    what is said below about the nodes chooses nothing."""

    workers: int = Field(1, ge=1)
    """Training processes, one per GPU where there are GPUs: a rank computes on one device, and two
    ranks cannot share one. The mathematics stays the same."""
    min_workers: int | None = Field(None, ge=1)
    """Where nodes are lost, training goes on with as few as this, and grows back to `workers` when
    there is room again. None: it waits for all of them."""
    gpu: bool | None = None
    """None: one GPU per worker if the cluster has that many, else CPUs."""
    cpus_per_worker: float | None = Field(None, gt=0)
    """What a worker takes, no data task gets. None: beside a GPU an even share of its node's CPUs
    if other nodes have a CPU per worker for the data, else 1; without GPUs an even share that
    leaves one for the data."""
    accelerator: str | None = None
    """The workers' GPUs must be of this type, as Ray names it: L4, A100, H100. None: any."""
    labels: Labels = Field({})
    """The workers' nodes must have these labels: {market: on-demand}. See Ray's label selectors."""
    data_labels: Labels = Field({})
    """While training runs, the nodes of the data tasks must have these: {role: data}."""
    threads_per_worker: int | None = Field(None, ge=1)
    """torch's threads. None: an even share of the machine's cores on CPU, torch's own on GPU."""
    max_failures: int = Field(3, ge=0)
    """Restarts of the workers after a failure before the job gives up. Nodes that were announced to
    go away do not count: a checkpoint is taken at the notice, and training goes on elsewhere."""
    preemption_grace_s: float = Field(0.0, ge=0)
    """Seconds that the other workers may go on after an announced node has gone."""


class Recipe(Section):
    """One training job. The file is YAML; any key can be overridden as section.key=value."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Names the job, its folder, its run and its registered model."""
    seed: int = Field(1, ge=0)
    storage: str = "heliograph-storage"
    """Folder or fsspec URL for corpora, tokenizers and checkpoints; every node must reach it."""
    data: Data
    tokenizer: Tokenizer = Tokenizer()
    augment: Augment = Augment()
    batches: Batches = Batches()
    model: Model = Model()
    train: Train
    validation: Validation = Validation()
    evaluate: Evaluate = Evaluate()
    track: Track = Track()
    registry: Registry = Registry()
    card: Card = Card()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _elastic_bounds_are_in_order(self) -> "Recipe":
        least, most = self.cluster.min_workers, self.cluster.workers
        if least is not None and least > most:
            raise ValueError(f"cluster.min_workers {least} must be at most cluster.workers {most}")
        return self

    @model_validator(mode="after")
    def _step_holds_a_micro_batch(self) -> "Recipe":
        step, micro = self.batches.tokens_per_step, self.batches.tokens_per_micro_batch
        if step < micro:
            raise ValueError(
                f"batches.tokens_per_step {step} must be at least tokens_per_micro_batch {micro}"
            )
        return self

    @model_validator(mode="after")
    def _augments_its_tokenizer(self) -> "Recipe":
        for key, kind, given in (
            ("bpe_dropout", "bpe", self.augment.bpe_dropout > 0),
            ("unigram_alpha", "unigram", self.augment.unigram_alpha is not None),
        ):
            if given and self.tokenizer.kind != kind:
                value = getattr(self.augment, key)
                raise ValueError(
                    f"augment.{key} {value} is for tokenizer.kind {kind}, and this recipe's is "
                    f"{self.tokenizer.kind}"
                )
        return self

    @property
    def model_name(self) -> str:
        """The registered model's name."""
        return self.registry.name or self.name

    @property
    def job_id(self) -> str:
        """Name and digest of all that decides the result: the same recipe is the same job, however
        many workers it gets and wherever it is tracked."""
        elsewhere = {"cluster", "track", "registry", "card", "storage"}
        result = self.model_dump(mode="json", exclude=elsewhere)
        digest = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:10]}"

    @classmethod
    def json_schema(cls) -> str:
        """The schema that editors complete and check recipes by: recipes/schema.json."""
        return json.dumps(cls.model_json_schema(), indent=2, ensure_ascii=False) + "\n"

    def to_yaml(self) -> str:
        """The whole recipe, defaults included, as it can be read back."""
        tree = self.model_dump(mode="json")
        return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
