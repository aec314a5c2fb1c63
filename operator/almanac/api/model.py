"""What every model of the contract is: frozen, camelCase outside, closed to unknown fields, and checked to the end.

pydantic skips a model's own checks once one of its fields is wrong. Here a check across fields is a `rule` that says
which fields it reads; it runs whenever these are right, so that one validation reports every independent problem. A
rule carries the same condition in CEL, for the schema that Kubernetes enforces.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

AnyModel = TypeVar("AnyModel", bound="Model")


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition across fields of one model: `holds(model)`, or the same in CEL over `self`."""

    at: tuple[str, ...]
    reads: tuple[tuple[str, ...], ...]
    message: str
    cel: str | None
    holds: Callable[[Any], bool]
    hidden: bool = False
    """The value is not shown: it may be a secret."""


def rule(
    at: str, *others: str, message: str, cel: str | None = None, hidden: bool = False
) -> Callable[[Callable[[AnyModel], bool]], Rule]:
    """Declare a condition of a model. `at` is the field that a violation points at (`output.uri` for one further in).

    The condition is looked at only where the fields that it reads, `at` and `others`, are right. `hidden` keeps the
    value out of messages.
    """
    reads = tuple(tuple(name.split(".")) for name in (at, *others))

    def declare(holds: Callable[[AnyModel], bool]) -> Rule:
        return Rule(reads[0], reads, message, cel, holds, hidden)

    return declare


def _with_rules(schema: dict[str, Any], model: type[Any]) -> None:
    """Add the rules that are said in CEL to a model's JSON schema, as Kubernetes has them."""
    told = [
        {"rule": one.cel, "message": one.message, "fieldPath": "".join(f".{to_camel(name)}" for name in one.at)}
        for one in model.rules()
        if one.cel
    ]
    if told:
        schema["x-kubernetes-validations"] = told


class Model(BaseModel):
    """The base of the contract's models.

    Attributes are snake_case here, camelCase in documents. A null is a field that is not set, as Kubernetes has it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
        json_schema_extra=_with_rules,
        ignored_types=(Rule,),
    )

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """The model of a document as Kubernetes has it: camelCase names only.

        Raises:
            ValidationError: with every problem of the document; `almanac.api.problems` puts them into words.
        """
        return cls.model_validate(document, by_alias=True, by_name=False)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """The conditions of this model, those of its bases first."""
        return _rules(cls)

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        data = {name: value for name, value in data.items() if value is not None}
        try:
            model = handler(data)
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, _all_errors(cls, data, error)) from None
        broken = _broken_rules(model, frozenset())
        if broken:
            raise ValidationError.from_exception_data(cls.__name__, broken)
        return model


Path = tuple[str, ...]
"""Attributes that lead from a model to a field of it, or of a model within."""


@cache
def _rules(model: type[Model]) -> tuple[Rule, ...]:
    return tuple(value for base in reversed(model.__mro__) for value in vars(base).values() if isinstance(value, Rule))


@cache
def _adapter(model: type[Model], field: str) -> TypeAdapter[Any]:
    info: FieldInfo = model.model_fields[field]
    kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return TypeAdapter(kind)


def aliases(model: type[Model]) -> dict[str, str]:
    """Documents' names of the fields -> attributes' names."""
    return {info.alias or name: name for name, info in model.model_fields.items()}


def inner(model: type[Model], field: str) -> type[Model] | None:
    """The model that a field holds, if it holds one."""
    kind = model.model_fields[field].annotation
    kinds = (kind, *get_args(kind)) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((one for one in kinds if isinstance(one, type) and issubclass(one, Model)), None)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that someone who wrote `name` probably meant."""
    by_plain = {candidate.lower().replace("_", "").replace("-", ""): candidate for candidate in names}
    plain = name.lower().replace("_", "").replace("-", "")
    found = difflib.get_close_matches(plain, by_plain, n=1)
    return by_plain[found[0]] if found else None


def _all_errors(model: type[Model], data: Mapping[str, Any], error: ValidationError) -> list[InitErrorDetails]:
    """What pydantic found, and the rules that are broken besides."""
    found = [(_touched(model, one["loc"]), dict(one)) for one in error.errors(include_url=False)]
    misspelt = {path for path, one in found if one["type"] == "extra_forbidden"}
    told = [_detail(model, one) for path, one in found if not (one["type"] == "missing" and path in misspelt)]
    if any(one["type"] == "string_unicode" and not path for path, one in found):  # a name that no field can have
        return told
    wrong = frozenset(path for path, _ in found if path)
    return told + _broken_rules(_partial(model, data, wrong), wrong)


def _broken_rules(model: Model, wrong: frozenset[Path]) -> list[InitErrorDetails]:
    """The rules that do not hold, of those that read nothing wrong."""
    readable = (
        one
        for one in model.rules()
        if not any(path[: len(read)] == read[: len(path)] for path in wrong for read in one.reads)
    )
    return [_violation(model, one) for one in readable if not one.holds(model)]


def _partial(model: type[Model], data: Mapping[str, Any], wrong: frozenset[Path]) -> Model:
    """The model with what is right of `data`; the rest is defaults, or absent."""
    names = {name: name for name in model.model_fields} | aliases(model)
    values: dict[str, Any] = {}
    for name, value in ((names[name], value) for name, value in data.items() if name in names):
        further_in = frozenset(path[1:] for path in wrong if path[0] == name)
        within = inner(model, name)
        if not further_in:
            values[name] = _adapter(model, name).validate_python(value)
        elif () not in further_in and within and isinstance(value, Mapping):
            values[name] = _partial(within, value, further_in)
    return model.model_construct(**values)


def _touched(model: type[Model], location: tuple[str | int, ...]) -> Path:
    """The field that an error says nothing good about: its own, or what a misspelt name was meant to be."""
    name, names = str(location[0]) if location else "", aliases(model)
    attribute = names.get(name) or names.get(nearest(name, names) or "")
    if not attribute:
        return ()
    within = inner(model, attribute)
    return (attribute, *(_touched(within, location[1:]) if within else ()))


def _detail(model: type[Model], error: dict[str, Any]) -> InitErrorDetails:
    """An error of pydantic's to raise again, in a form that keeps its type, words, place and value."""
    kind, words = error["type"], error["msg"]
    if kind == "extra_forbidden" and len(error["loc"]) == 1:
        meant = nearest(str(error["loc"][0]), aliases(model))
        kind, words = "unknown_field", f"unknown field, did you mean `{meant}`?" if meant else "unknown field"
    context = {name: value for name, value in error.get("ctx", {}).items() if name != "error"}
    return InitErrorDetails(type=PydanticCustomError(kind, words, context), loc=error["loc"], input=error["input"])


def _violation(model: Model, broken: Rule) -> InitErrorDetails:
    value: Any = model
    for name in broken.at:
        value = getattr(value, name)
    value = value.model_dump(mode="json") if isinstance(value, Model) else value
    location = tuple(map(to_camel, broken.at))
    shown = None if broken.hidden else value
    return InitErrorDetails(type=PydanticCustomError("rule", broken.message), loc=location, input=shown)
