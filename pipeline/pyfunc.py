"""The registered model's entry: what `mlflow.pyfunc.load_model` runs.

Registration copies this file and the packages `model` and `pipeline` beside the weights, so that a
registered model loads where Heliograph is not installed, from code and data alone, with no pickle.
No stage imports this file: MLflow executes it.
"""

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipeline.model_folder import read_settings
from pipeline.recipe import Evaluate
from pipeline.translate import Translator


class TranslationModel(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Sentences to sentences. `params` are settings of `recipe.Evaluate`; those left out are as the
    version was scored."""

    def load_context(self, context: PythonModelContext) -> None:
        self.translator = Translator.load(context.artifacts["model"])
        self.settings = read_settings(context.artifacts["model"])

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow passes it
        model_input: list[str],
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        settings = Evaluate(**(self.settings.model_dump() | (params or {})))
        return self.translator.translate(model_input, settings)


set_model(TranslationModel())
