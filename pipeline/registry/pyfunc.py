"""The registered model's entry: what `mlflow.pyfunc.load_model` and `mlflow models serve` run.

Registration copies this file and the packages `model` and `pipeline` beside the weights, so that a
registered model loads where Heliograph is not installed, from code and data alone, with no pickle.
No stage imports this file: MLflow executes it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import ValidationError

from heliograph.pipeline.checkpoints.model_folder import read_max_characters, read_settings
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.translation.engines import ENGINE, Engine, open_engine
from heliograph.pipeline.translation.translate import RunsModel, check_lengths


class TranslationModel(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Sentences to translations.

    `params` are `engine` and the settings of `recipe.Decoding`; those left out are as the version
    was scored, by torch.
    """

    def load_context(self, context: PythonModelContext) -> None:
        self.folder = Path(context.artifacts["model"])
        self.settings = read_settings(self.folder)
        self.max_characters = read_max_characters(self.folder)
        self.engines: dict[Engine, RunsModel] = {ENGINE: open_engine(self.folder)}

    # Without a type of model_input: MLflow would take it for the only one that it may hand over.
    def predict(  # type: ignore[no-untyped-def]
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow passes it
        model_input,
        params: dict[str, Any] | None = None,
    ) -> list[Any]:
        """One translation per sentence; with `n_best` above 1, each sentence's best translations as
        [{text, score}, …].

        Args:
            model_input: a sentence, a list or an array of them, or a table with them in its first
                column.

        Raises:
            MlflowException: BAD_REQUEST, with what would be valid.
        """
        try:
            return self._translate(sentences(model_input), dict(params or {}))
        except ValidationError as error:
            raise MlflowException.invalid_parameter_value(f"params: {one_line(error)}") from error
        except RequestError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _translate(self, texts: list[str], params: Mapping[str, Any]) -> list[Any]:
        check_lengths(texts, self.max_characters)
        wanted = {key: value for key, value in params.items() if key != "engine"}
        engine = self._engine(params.get("engine", ENGINE))
        settings = Decoding.like(self.settings, **wanted)
        if settings.n_best == 1:
            return engine.translate(texts, settings)
        return [
            [{"text": each.text, "score": each.score} for each in translations]
            for translations in engine.alternatives(texts, settings)
        ]

    def _engine(self, name: Engine) -> RunsModel:
        """Loaded once, when it is first asked for."""
        if name not in self.engines:
            self.engines[name] = open_engine(self.folder, name)
        return self.engines[name]


def sentences(model_input: Any) -> list[str]:
    """The sentences of whatever MLflow hands over.

    Raises:
        RequestError: it is none of what `TranslationModel.predict` takes.
    """
    if isinstance(model_input, str):
        return [model_input]
    if isinstance(model_input, pd.DataFrame):
        model_input = model_input.iloc[:, 0]  # all others MLflow has dropped before
    if isinstance(model_input, pd.Series | np.ndarray):
        model_input = model_input.tolist()
    found = list(model_input)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise RequestError(f"sentence {number} is {text!r}; it must be text")
    return found


set_model(TranslationModel())
