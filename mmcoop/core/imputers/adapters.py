"""How a model of any kind is called with inputs by modality, whatever it is wrapped in."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Any

from torch import fx, nn

from mmcoop.errors import DataError, UsageError

#: `(model, inputs by modality) -> output`.
Call = Callable[[Any, dict[str, Any]], Any]

_REST = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class UnclearCall(UsageError):
    """There is no telling how a model is called; `what` it takes."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: give call=lambda model, inputs: …, or a model that takes the modalities by "
            "name, or one dict of them"
        )
        self.what = what


def check_callable(model: Any) -> None:
    """Raise `UsageError` for what cannot be called, and so is no model."""
    if isinstance(model, type) or not callable(model):
        given = model.__name__ + ", a class" if isinstance(model, type) else repr(model)[:60]
        raise UsageError(f"the model is {given}: give a torch.nn.Module or another callable")


def name_of(model: Any) -> str:
    """What a model is called in messages."""
    return str(getattr(model, "__name__", type(model).__name__))


def module_of(model: Any) -> nn.Module | None:
    """The module that is called in the end: the model, what `functools.partial` has bound, or what
    a bound method is of; None for any other callable.
    """
    while isinstance(model, partial):
        model = model.func
    if not isinstance(model, nn.Module):
        model = getattr(model, "__self__", None)
    return model if isinstance(model, nn.Module) else None


def parameters_of(model: Any, modalities: Sequence[str] = ()) -> Signature | None:
    """What a model takes: its own parameters or, where it passes on whatever it is given, those of
    the model inside (of `DataParallel`, `torch.compile`, an adapter, a replaced `forward`).

    Of several modules inside, it is the one with a parameter for each of the modalities, or with
    `present`. None where there is no telling, as of some callables written in C.
    """
    found = None
    for called in _calls(model):
        try:
            found = signature(called)
        except (TypeError, ValueError):
            found = _signature_of_script(called)
        if found is None or not _is_open(found):
            return found
    module = module_of(model)
    if module is None:
        return found
    if module is not model:
        return parameters_of(module, modalities)
    inside = [parameters_of(child, modalities) for child in module.children()]
    known = [s for s in inside if s is not None and not _is_open(s)]
    if len(inside) > 1:
        wanted = set(modalities) or {"present"}
        known = [s for s in known if _names(s) >= wanted or "present" in _names(s)]
    return known[0] if len(known) == 1 else found


def takes_present(model: Any) -> bool:
    """Whether a model says itself what to do without a modality: it has a parameter `present`."""
    found = parameters_of(model)
    return found is not None and "present" in _names(found)


def check_takes_present(model: Any, modalities: Sequence[str]) -> None:
    """Raise `UsageError` for a model that cannot be called as `model(inputs, present)`."""
    found = parameters_of(model, modalities)
    if found is None:
        return
    if _names(found) >= {*modalities} and "present" not in _names(found):
        takes = f"{', '.join(modalities)} by name"
    else:
        try:
            found.bind(None, None)
        except TypeError:
            takes = str(found)
        else:
            return
    raise UsageError(
        f"{name_of(model)} takes {takes} and no `present`: say what replaces an absent modality, "
        "as mmcoop.replace_inputs(model, modalities) does"
    )


def calling_adapter(model: Any, modalities: Sequence[str]) -> Call:
    """How a model is called: `model(**inputs)` if it has parameters named after the modalities, or
    takes any names; else `model(inputs)`.

    Raises `UnclearCall` for a model of which neither is certain: with parameters for some of the
    modalities only, with further ones that must be given, or with `*args` and `**kwargs` alone.
    """
    found = parameters_of(model, modalities)
    if found is None:
        return _together
    names = _names(found)
    if names.issuperset(modalities):
        return _by_name(model, found, modalities)
    some = [m for m in modalities if m in names]
    if not some and _is_open(found):
        kinds = {p.kind for p in found.parameters.values()}
        if kinds == {Parameter.VAR_KEYWORD}:
            return _all_by_name
        raise UnclearCall(f"{name_of(model)} takes {found}, which may be anything")
    if some:
        lacking = [m for m in modalities if m not in names]
        raise UnclearCall(
            f"{name_of(model)} takes {', '.join(some)} by name, and has no parameter "
            f"{', '.join(lacking)}"
        )
    try:
        found.bind(None)
    except TypeError:
        raise UnclearCall(
            f"{name_of(model)} takes {', '.join(found.parameters) or 'nothing'}, and no parameter "
            f"is named after a modality ({', '.join(modalities)})"
        ) from None
    return _together


def _together(model: Any, inputs: dict[str, Any]) -> Any:
    return model(inputs)


def _all_by_name(model: Any, inputs: dict[str, Any]) -> Any:
    return model(**inputs)


def _by_name(model: Any, found: Signature, modalities: Sequence[str]) -> Call:
    """By name; by position where parameters have no names for a caller."""
    kinds = {p.name: p.kind for p in found.parameters.values()}
    spec = getattr(model, "_in_spec", None) if isinstance(model, fx.GraphModule) else None
    if spec is not None:  # an exported program takes its inputs in the form it was exported with
        named = set(spec.child(1).context)
        first = [name for name in kinds if name not in named]
    else:
        first = [n for n, kind in kinds.items() if kind is Parameter.POSITIONAL_ONLY]
        first = [name for name in first if name in modalities]
    rest = [m for m in modalities if m not in first]
    try:
        found.bind(*first, **dict.fromkeys(rest))
        if spec is not None and len(kinds) > len(modalities):
            raise TypeError
    except TypeError:
        raise UnclearCall(
            f"{name_of(model)} takes {', '.join(kinds)}, and is given the modalities "
            f"({', '.join(modalities)}) alone"
        ) from None
    if not first:
        return _all_by_name

    def call(model: Any, inputs: dict[str, Any]) -> Any:
        named = {name: x for name, x in inputs.items() if name not in first}
        try:
            return model(*(inputs[name] for name in first), **named)
        except AssertionError as error:
            if spec is None:
                raise
            raise _refused_by_program(error) from error

    return call


def _refused_by_program(error: AssertionError) -> DataError:
    return DataError(
        f"the exported program does not take what it is given: {error}. It is asked for any number "
        "of rows: export it with dynamic_shapes, as in {'audio': {0: torch.export.Dim('rows')}, …}"
    )


def _calls(model: Any) -> Iterator[Callable[..., Any]]:
    """What may have the parameters of a model, the surest first."""
    if isinstance(model, nn.Module):
        yield model.forward
        if "forward" in vars(model):  # replaced, for this module alone
            yield partial(type(model).forward, model)
    elif isinstance(model, partial) and isinstance(model.func, nn.Module):
        yield partial(model.func.forward, *model.args, **model.keywords)
    else:
        yield model


def _signature_of_script(called: Any) -> Signature | None:
    """The parameters of what `torch.jit` has traced."""
    schema = getattr(called, "schema", None)
    if schema is None:
        return None
    kind = Parameter.POSITIONAL_OR_KEYWORD
    return Signature([Parameter(a.name, kind) for a in schema.arguments if a.name != "self"])


def _is_open(found: Signature) -> bool:
    """Whether there are `*args` or `**kwargs`, and no more."""
    kinds = [p.kind for p in found.parameters.values()]
    return bool(kinds) and all(kind in _REST for kind in kinds)


def _names(found: Signature) -> set[str]:
    return {p.name for p in found.parameters.values() if p.kind not in _REST}
