"""Translation speed: both of Heliograph's engines beside the libraries that they are held against.

    heliograph export models:/multi30k@champion
    python benchmarks/translate.py models:/multi30k@champion        # two threads of a CPU, float32

One model, the sentences of the evaluation set that it brings, one beam; text in, text out,
tokenizing included. The contestants take turns, round by round in one process, so that whatever
else the machine does hits all alike; a rate is the median over the rounds.

- `transformers` is its `generate` on the MarianMT of the same weights, in evaluation mode, in the
  same batches sorted by length, with `early_stopping`, which is when our search stops, too.
- `ctranslate2` is the library's own `translate_batch` on the same export with one call for all
  sentences, in the best of several batch sizes and of both ways to use the threads.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ctranslate2
import torch

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from heliograph.pipeline.checkpoints.model_folder import TOKENIZER, load_model
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.request.decoding import Evaluate
from heliograph.pipeline.scoring.evaluate import read_evaluation_set, score
from heliograph.pipeline.steps.tokenizer import END, PAD, Tokenizer
from heliograph.pipeline.translation.engines import open_engine
from heliograph.pipeline.translation.exports import check_export
from heliograph.pipeline.translation.marian import to_marian
from heliograph.pipeline.translation.translate import batches

Translate = Callable[[list[str]], list[str]]


@dataclass
class Contestant:
    """Seconds of each round, and what it said in the last."""

    name: str
    translate: Translate
    seconds: list[float] = field(default_factory=list)
    translations: list[str] = field(default_factory=list)

    def run(self, sentences: list[str]) -> None:
        started = time.perf_counter()
        self.translations = self.translate(sentences)
        self.seconds.append(time.perf_counter() - started)

    @property
    def rate(self) -> float:
        """Sentences a second."""
        return len(self.translations) / statistics.median(self.seconds)


def transformers_generate(folder: Path, settings: Evaluate) -> Translate:
    model, tokenizer = load_model(folder)
    marian = to_marian(model, settings)
    marian.generation_config.max_length = None

    @torch.inference_mode()
    def translate(sentences: list[str]) -> list[str]:
        ids = tokenizer.encode_batch(sentences)
        found: dict[int, list[int]] = {}
        for batch in batches(range(len(ids)), ids, settings.tokens_per_batch):
            rows = [[*ids[number], END] for number in batch]
            source = torch.tensor([row + [PAD] * (len(rows[-1]) - len(row)) for row in rows])
            output = marian.generate(
                input_ids=source,
                attention_mask=source != PAD,
                early_stopping=True,
                max_new_tokens=_longest(len(rows[-1]) - 1, settings),
            )
            found |= zip(batch, output.tolist(), strict=True)
        return tokenizer.decode_batch([found[number] for number in range(len(ids))])

    return translate


def ctranslate2_directly(
    folder: Path, export: str, settings: Evaluate, threads: tuple[int, int], batch: tuple[int, str]
) -> Translate:
    """threads: batches at a time, threads of each. batch: its size, in examples or tokens."""
    tokenizer = Tokenizer.load(str(folder / TOKENIZER))
    names = tokenizer.vocabulary
    ids_of = {name: number for number, name in enumerate(names)}
    backend = ctranslate2.Translator(
        str(folder / export), inter_threads=threads[0], intra_threads=threads[1]
    )

    def translate(sentences: list[str]) -> list[str]:
        ids = tokenizer.encode_batch(sentences)
        results = backend.translate_batch(
            [[names[token] for token in row] for row in ids],
            max_batch_size=batch[0],
            batch_type=batch[1],
            beam_size=settings.beam,
            length_penalty=settings.length_penalty,
            max_decoding_length=_longest(max(map(len, ids)), settings),
            max_input_length=0,
        )
        return tokenizer.decode_batch(
            [[ids_of[name] for name in result.hypotheses[0]] for result in results]
        )

    return translate


def best_of(contestants: Sequence[Contestant], sentences: list[str], rounds: int) -> Contestant:
    for _ in range(rounds):
        for contestant in contestants:
            contestant.run(sentences)
    best = max(contestants, key=lambda contestant: contestant.rate)
    best.seconds.clear()
    return best


def direct_contestants(folder: Path, export: str, settings: Evaluate, cores: int):
    """ctranslate2 in several settings, of which the fastest is compared with."""
    for threads in ((cores, 1), (1, cores)):
        for batch in ((32, "examples"), (64, "examples"), (1024, "tokens"), (4096, "tokens")):
            name = f"ctranslate2 directly, {threads[0]}×{threads[1]} threads, {batch[0]} {batch[1]}"
            yield Contestant(name, ctranslate2_directly(folder, export, settings, threads, batch))


def _longest(source_tokens: int, settings: Evaluate) -> int:
    """Tokens of a translation, end token included."""
    return int(source_tokens * settings.max_length_factor) + settings.max_length_extra + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="with an export, see `heliograph export`")
    parser.add_argument("--export", default="ctranslate2", help="or ctranslate2-int8")
    parser.add_argument("--sentences", type=int, default=1014)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    folder = Path(fetch_model(options.model, options.export))
    check_export(folder, options.export)
    settings = Evaluate(beam=options.beam)
    pairs = read_evaluation_set(folder)[: options.sentences]
    sentences, references = [source for source, _ in pairs], [target for _, target in pairs]
    warm_up = sentences[:50]

    direct = best_of(
        list(direct_contestants(folder, options.export, settings, options.threads)), sentences, 1
    )
    contestants = [
        Contestant("transformers", transformers_generate(folder, settings)),
        Contestant("Heliograph, torch", _ours(folder, "torch", settings)),
        direct,
        Contestant(f"Heliograph, {options.export}", _ours(folder, options.export, settings)),
    ]
    for contestant in contestants:
        contestant.translate(warm_up)
    for _ in range(options.rounds):
        for contestant in contestants:
            contestant.run(sentences)
    theirs, torch_, direct, fast = contestants
    result = {
        "sentences": len(sentences),
        "beam": options.beam,
        "threads": options.threads,
        "rates": {each.name: each.rate for each in contestants},
        "bleu": {each.name: score(each.translations, references).bleu for each in contestants},
        "torch_to_transformers": torch_.rate / theirs.rate,
        "engine_to_ctranslate2": fast.rate / direct.rate,
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{len(sentences):,} sentences, beam {options.beam}, {options.threads} threads")
    for name, rate in result["rates"].items():
        print(f"{rate:8.1f} sentences/s  BLEU {result['bleu'][name]:.2f}  {name}")
    print(f"{result['torch_to_transformers']:8.2f} × Heliograph's torch / transformers")
    print(f"{result['engine_to_ctranslate2']:8.2f} × Heliograph's {options.export} / ctranslate2")


def _ours(folder: Path, engine, settings: Evaluate) -> Translate:
    runs = open_engine(folder, engine)
    return lambda sentences: runs.translate(sentences, settings)


if __name__ == "__main__":
    main()
