"""Small models that know a few sentences by heart: real files and real decoding, in a second."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from mlflow.tracking import MlflowClient
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence

from heliograph.model import SmoothedLoss, Transformer, TransformerConfig
from heliograph.pipeline.checkpoints.model_folder import save_model
from heliograph.pipeline.steps.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tests.pipeline.model_store import Store

PAIRS = [
    ("The dog barks loudly at night.", "Der Hund bellt laut in der Nacht."),
    ("The bark of the old tree is rough.", "Die Rinde des alten Baumes ist rau."),
    ("Two men are reading a newspaper.", "Zwei Männer lesen gerade eine Zeitung."),
    ("A child eats an apple in the kitchen.", "Ein Kind isst in der Küche einen Apfel."),
    ("She gives her brother the red book.", "Sie gibt ihrem Bruder das rote Buch."),
    ("We will see the sea tomorrow.", "Morgen werden wir das Meer sehen."),
]

MakeModel = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE of 320 tokens: any text can be encoded."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text for pair in PAIRS for text in pair], trainer)
    return Tokenizer.from_json(backend.to_str())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads cost tiny models far more than they bring, on a busy machine above all."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_model(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """A model folder for a seed: the model knows the first `known` of PAIRS, and no others."""
    made: dict[tuple[int, int], Path] = {}

    def make(seed: int, known: int = len(PAIRS)) -> Path:
        if (seed, known) not in made:
            folder = made[seed, known] = tmp_path_factory.mktemp("model")
            save_model(folder, train_model(tiny_tokenizer, PAIRS[:known], seed), tiny_tokenizer)
        return made[seed, known]

    return make


def train_model(
    tokenizer: Tokenizer, pairs: list[tuple[str, str]], seed: int, steps: int = 200
) -> Transformer:
    torch.manual_seed(seed)
    sizes = {"width": 48, "heads": 2, "feed_forward": 96, "encoder_layers": 1, "decoder_layers": 2}
    config = TransformerConfig(tokenizer.vocabulary_size, **sizes)
    model = Transformer(config).eval()  # without dropout it learns in fewer steps
    sources, targets = (tokenizer.encode_batch(list(side)) for side in zip(*pairs, strict=True))
    source = padded([[*ids, config.end_id] for ids in sources])
    target_in = padded([[config.start_id, *ids] for ids in targets])
    target_out = padded([[*ids, config.end_id] for ids in targets])
    loss = SmoothedLoss(model, 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        total, tokens = loss(source, target_in, target_out)
        (total / tokens).backward()
        optimizer.step()
    return model


def padded(rows: list[list[int]]) -> torch.Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with all its tables, which takes MLflow seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> "Store":
    from tests.pipeline.model_store import Store

    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return Store(tmp_path)
