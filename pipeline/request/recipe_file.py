"""Reading a recipe file and its overrides; each mistake in one line with what would be valid."""

import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from heliograph.pipeline.request.data import Data, Ingredient, Location, Section
from heliograph.pipeline.request.decoding import Bulk, Decoding, Evaluate, Sampling, Search
from heliograph.pipeline.request.errors import RequestError, did_you_mean, one_line
from heliograph.pipeline.request.recipe import Recipe, Registry, Train
from heliograph.pipeline.request.rules import RULES, Gate

_QUOTE_IT = "; text that begins with *, & or !, or that has `: ` in it, needs quotation marks"


class RecipeLoader(yaml.SafeLoader):
    """YAML as people read it: no and on are text (Norwegian, say), and so are dates; a key that is
    given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in lines:
                raise RequestError(f"{key!r} is given twice, in lines {lines[key]} and {line}")
            lines[key] = line
        return super().construct_mapping(node, deep)


RecipeLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(text: str) -> Any:
    """The value that the text is; raises yaml.YAMLError, or RequestError for a key given twice."""
    return yaml.load(text, RecipeLoader)


def load_recipe(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] | None = None
) -> Recipe:
    """Read a recipe file, or take a recipe's nested dictionaries, apply `key.path=value` overrides,
    check every key and value.

    Raises:
        RequestError: the file is missing or no YAML, a key is unknown, a value is invalid.
    """
    tree = deepcopy(dict(recipe)) if isinstance(recipe, Mapping) else _read_tree(Path(recipe))
    for override in overrides or []:
        _apply_override(tree, override)
    return parse_recipe(tree)


def _read_tree(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RequestError(f"recipe {str(path)!r} does not exist; recipes are YAML files")
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except RequestError as error:
        raise RequestError(f"recipe {str(path)!r}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"recipe {str(path)!r} is not YAML: {reason}{_QUOTE_IT}") from error
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise RequestError(f"recipe {str(path)!r} must hold keys and values, not a {kind}")
    return tree


def parse_recipe(tree: dict[str, Any]) -> Recipe:
    """A recipe from nested dictionaries; raises RequestError as `load_recipe` does."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RequestError("; ".join(_describe(problem) for problem in _distinct(error))) from error


def read_evaluate(path: Path) -> Evaluate:
    """How a recipe decodes; the other sections may be those of any release.

    Raises:
        RequestError: the file is no recipe, or says something else under `evaluate`.
    """
    try:
        return Evaluate.model_validate(_read_section(path, "evaluate"))
    except ValidationError as error:
        raise RequestError(f"recipe {str(path)!r} cannot be read: {one_line(error)}") from error


def parse_decoding(base: Search | None, overrides: Sequence[str]) -> Decoding:
    """A model's own decoding settings with `key=value` overrides: beam=1, sampling.top_k=10. `base`
    is None while they are not known: then the overrides alone are looked at.

    Raises:
        RequestError: a key is unknown, a value is invalid.
    """
    # Any number of translations may be among those that an unknown beam finds.
    tree = {"beam": sys.maxsize} if base is None else base.search_settings()
    for override in overrides:
        _apply_override(tree, override)
    return _checked(Decoding, tree)


def parse_bulk(options: Mapping[str, Any]) -> Bulk:
    """How a data set is translated; None: by default. Raises RequestError for an invalid value."""
    return _checked(Bulk, {name: value for name, value in options.items() if value is not None})


def parse_location(option: str, text: str) -> Location:
    """A location that an option of a command holds: a name or path, else YAML.

    Raises:
        RequestError: it is neither.
    """
    location = text
    try:
        if text.lstrip().startswith(("{", "[")):
            location = read_yaml(text)
        return TypeAdapter[Location](Location).validate_python(location)
    except (yaml.YAMLError, ValidationError) as error:
        raise RequestError(
            f"{option} {text!r}: must be a name or path, a list of files, "
            "{source: FILE, target: FILE} or {stream: NAME}"
        ) from error


S = TypeVar("S", bound=Section)


def _checked(section: type[S], tree: Mapping[str, Any]) -> S:
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise RequestError("; ".join(_describe_setting(each) for each in error.errors())) from error


def _describe_setting(problem: Mapping[str, Any]) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        section = Sampling if key.startswith("sampling.") else Decoding
        return f"{key}: unknown key; {did_you_mean(str(problem['loc'][-1]), section.model_fields)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {problem['input']!r}: {message[0].lower()}{message[1:]}" if key else message


def read_gate(path: Path) -> Gate:
    """The gate's rules of a recipe; the default ones of a recipe that says nothing of them.

    Raises:
        RequestError: the file is no recipe, or has something else there.
    """
    section = _read_section(path, "registry")
    return parse_gate(section["gate"]) if "gate" in section else Registry().gate


def read_max_characters(path: Path) -> int:
    """Of the longest side of a pair that a recipe trains on; RequestError if it is no recipe."""
    default = Data.model_fields["max_characters"].default
    return int(_read_section(path, "data").get("max_characters", default))


def read_precision(path: Path) -> str:
    """That a recipe trains with: auto, float32 or bfloat16; RequestError if it is no recipe."""
    default = Train.model_fields["precision"].default
    return str(_read_section(path, "train").get("precision", default))


def read_direction(path: Path) -> str:
    """From what to what a recipe translates, by the names of its columns: en→de."""
    section = _read_section(path, "data")
    return "→".join(
        str(section.get(side, Data.model_fields[side].default)) for side in ("source", "target")
    )


def _read_section(path: Path, name: str) -> dict[str, Any]:
    """Nothing, where there is no recipe."""
    if not path.is_file():
        return {}
    try:
        return dict(read_yaml(path.read_text(encoding="utf-8")).get(name, {}))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise RequestError(f"recipe {str(path)!r} cannot be read: {one_line(error)}") from error


def parse_gate(rules: Any) -> Gate:
    """Rules from dictionaries; raises RequestError as `load_recipe` does."""
    try:
        return Registry.model_validate({"gate": rules}).gate
    except ValidationError as error:
        problems = [{**problem, "loc": ("registry", *problem["loc"])} for problem in error.errors()]
        raise RequestError("; ".join(_describe_rule(problem) for problem in problems)) from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RequestError(f"override {override!r} must read key.path=value, as in train.steps=100")
    try:
        # What these begin is no value in YAML; `*` begins a glob.
        value = text if text.startswith(tuple("*&!%@`")) else read_yaml(text) if text else None
    except yaml.YAMLError as error:
        raise RequestError(
            f"override {override!r}: {text!r} is not a YAML value{_QUOTE_IT}"
        ) from error
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
        if problem["loc"][:2] == ("registry", "gate"):
            key = ".".join(str(part) for part in problem["loc"])
        # loc: data, train, "list[Ingredient]", its number, and maybe its key.
        ingredient = problem["loc"][2:3] == ("list[Ingredient]",) and len(problem["loc"]) > 4
        if problems.get(key, {}).get("ingredient") and problem["type"] != "extra_forbidden":
            continue  # said more exactly already; a mistyped key explains a missing one
        problems[key] = dict(problem) | {"key": key, "ingredient": ingredient}
    return list(problems.values())


def _describe(problem: dict[str, Any]) -> str:
    key, value = problem["key"], problem["input"]
    if problem["loc"][:2] == ("registry", "gate"):
        return _describe_rule(problem)
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
    if problem["type"] == "string_type" and not isinstance(value, dict | list | None):
        return f"{key}: {value!r}: must be text: put quotation marks around it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if isinstance(value, dict) and not key:  # a rule across sections names its own keys
        return message
    message = message[0].lower() + message[1:]
    return f"{key}: {message}" if isinstance(value, dict) else f"{key}: {value!r}: {message}"


def _describe_rule(problem: Mapping[str, Any]) -> str:
    """loc: registry, gate, and maybe the rule's number, its kind, its key."""
    location: list[Any] = [*problem["loc"][2:], None, None, None]
    number, kind, name = location[:3]
    key = "registry.gate" + ("" if number is None else f"[{number}]")
    if problem["type"].startswith("union_tag"):
        given = problem["input"].get("kind") if isinstance(problem["input"], dict) else None
        return f"{key}: kind {given!r} is not one; {did_you_mean(str(given), RULES)}"
    key += f".{name}" if isinstance(name, str) else ""
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; {did_you_mean(str(name), RULES[str(kind)].model_fields)}"
    if problem["type"] == "missing":
        return f"{key}: missing; the rule must set it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _keys(parents: list[str]) -> list[str]:
    section: Any = Recipe
    for parent in parents:
        section = section.model_fields[parent].annotation
    return list(section.model_fields)
