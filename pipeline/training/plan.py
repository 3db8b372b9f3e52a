"""The training plan: what the driver decides and every worker follows."""

from dataclasses import dataclass

from heliograph.pipeline.checkpoints.checkpoint_store import CheckpointStore
from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.request import recipe
from heliograph.pipeline.request.decoding import Evaluate, Search


@dataclass(frozen=True)
class TrainingPlan:
    """What the workers need to know; folders and files are on storage that every node reaches."""

    folder: str
    """The job's own: its checkpoints are below."""
    corpora: tuple[tuple[str, float], ...]
    """Folder and weight of each corpus of the training mixture."""
    validation_corpus: str
    tokenizer: str
    seed: int
    model: recipe.Model
    batches: recipe.Batches
    augment: recipe.Augment
    train: recipe.Train
    validation: recipe.Validation
    evaluate: Evaluate
    log_every_steps: int
    threads: int | None
    recipe_yaml: str
    """Kept with each checkpoint."""
    tracking_uri: str
    run_id: str
    run_started: float
    """Seconds since 1970."""
    start: str = ""
    """Of this job, the one that its folder belongs to; see `fence.claim`."""

    @property
    def checkpoints(self) -> CheckpointStore:
        return CheckpointStore(f"{self.folder}/checkpoints")

    @property
    def averages(self) -> CheckpointStore:
        """Where the mean of the last checkpoints is kept, under the last one's step."""
        return CheckpointStore(f"{self.folder}/averages")

    @property
    def spools(self) -> str:
        """Where metrics wait while the tracking server is away; each writer has a folder below."""
        return f"{self.folder}/metrics"

    @property
    def events(self) -> str:
        """What befell the job, a file each."""
        return f"{self.folder}/events"

    @property
    def search(self) -> Search:
        """How validation decodes: as the finished model will be, but for the beam, so that what is
        best here is best there (issue 17, point 2)."""
        return Search(**self.evaluate.search_settings() | {"beam": self.validation.beam})

    @property
    def checkpoint_intervals(self) -> tuple[int, int]:
        """A checkpoint is taken at multiples of either: each validation may be the best one."""
        return self.train.checkpoint_steps, self.validation.every_steps

    def is_scheduled(self, step: int) -> bool:
        """Whether an undisturbed job takes a checkpoint there, too: not those that an interrupt, or
        the notice of a node's end, has taken (issue 15, point 8)."""
        return step == self.train.steps or any(
            step % interval == 0 for interval in self.checkpoint_intervals
        )

    def is_finished(self, state: TrainingState) -> bool:
        """Whether a job in this state has no step left to take."""
        patience = self.validation.patience
        return (
            (self.train.steps is not None and state.step >= self.train.steps)
            or (self.train.epochs is not None and state.position.epoch >= self.train.epochs)
            or (patience is not None and state.validations_without_better >= patience)
        )

    def share_done(self, state: TrainingState, epochs_done: float) -> float:
        """How much of the job is done, 0 to 1, by whichever limit is nearer."""
        by_steps = state.step / self.train.steps if self.train.steps else 0.0
        by_epochs = epochs_done / self.train.epochs if self.train.epochs else 0.0
        return min(1.0, max(by_steps, by_epochs))
