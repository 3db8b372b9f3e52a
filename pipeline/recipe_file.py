"""Reading a recipe file and its overrides; each mistake in one line with what would be valid."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.errors import RequestError, did_you_mean
from pipeline.recipe import Ingredient, Recipe


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file, apply `key.path=value` overrides, check every key and value.

    Raises:
        RequestError: the file is missing or no YAML, a key is unknown, a value is invalid.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"recipe {str(path)!r} does not exist; recipes are YAML files")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"recipe {str(path)!r} is not YAML: {reason}") from error
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise RequestError(f"recipe {str(path)!r} must hold keys and values, not a {kind}")
    for override in overrides or []:
        _apply_override(tree, override)
    return parse_recipe(tree)


def parse_recipe(tree: dict[str, Any]) -> Recipe:
    """A recipe from nested dictionaries; raises RequestError as `load_recipe` does."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RequestError("; ".join(_describe(problem) for problem in _distinct(error))) from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RequestError(f"override {override!r} must read key.path=value, as in train.steps=100")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise RequestError(f"override {override!r}: {text!r} is not a YAML value") from error
    *parents, leaf = key.split(".")
    for parent in parents:
        child = tree.get(parent)
        if not isinstance(child, dict):
            child = tree[parent] = {}
        tree = child
    tree[leaf] = value


def _distinct(error: ValidationError) -> list[dict[str, Any]]:
    """One problem per key: a union reports each of its members, of which the last says most."""
    problems: dict[str, dict[str, Any]] = {}
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"][:2])
        # loc: data, train, "list[Ingredient]", its number, and maybe its key.
        ingredient = problem["loc"][2:3] == ("list[Ingredient]",) and len(problem["loc"]) > 4
        if problems.get(key, {}).get("ingredient") and problem["type"] != "extra_forbidden":
            continue  # said more exactly already; a mistyped key explains a missing one
        problems[key] = dict(problem) | {"key": key, "ingredient": ingredient}
    return list(problems.values())


def _describe(problem: dict[str, Any]) -> str:
    key, value = problem["key"], problem["input"]
    if problem["ingredient"]:
        number, name = problem["loc"][3:5]
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(str(name), Ingredient.model_fields)
            return f"{key}[{number}].{name}: unknown key; {hint}"
        if problem["type"] == "missing":
            return f"{key}[{number}].{name}: missing"
        message = str(problem["msg"])
        return f"{key}[{number}].{name}: {value!r}: {message[0].lower()}{message[1:]}"
    if key in ("data.train", "data.validation"):
        return (
            f"{key}: {value!r}: must be a name or path, a list of files, {{source: file, target: "
            "file}, {stream: name}, or, in data.train, a list of {location: …, weight: …}"
        )
    if problem["type"] == "extra_forbidden":
        *parents, leaf = key.split(".")
        return f"{key}: unknown key; {did_you_mean(leaf, _keys(parents))}"
    if problem["type"] == "missing":
        return f"{key}: missing; the recipe must set it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if isinstance(value, dict) and not key:  # a rule across sections names its own keys
        return message
    message = message[0].lower() + message[1:]
    return f"{key}: {message}" if isinstance(value, dict) else f"{key}: {value!r}: {message}"


def _keys(parents: list[str]) -> list[str]:
    section: Any = Recipe
    for parent in parents:
        section = section.model_fields[parent].annotation
    return list(section.model_fields)
