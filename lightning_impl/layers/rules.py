"""A user's own rules, for layers that no table has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from experiment.protocols.trace import TraceError, user_object
from lightning_impl.layers import registry
from lightning_impl.layers.layer_type import LayerType, Weight, Weights


def use(rules: Sequence[str]) -> None:
    """Let `layer_type` know the rules `Class=package.module:rule`.

    Of two for one class Keras's side takes the first and torch's the last. A rule is imported once a layer
    needs it; TraceError then where it fails.

    A rule takes a module and returns a mapping: `kind`, and where it has them `settings` and `weights`, the
    latter by Keras's name to a parameter's name (`proj.weight`), or to (name, function that takes it to
    Keras's layout by moving and selecting elements).
    """
    registry.RULES.clear()
    for text in rules:
        name, _, rule = text.partition("=")
        registry.RULES[name] = _record(name, rule)


def _record(name: str, rule: str) -> LayerType:
    def facts(module: Any) -> Mapping[str, Any]:
        said = user_object(rule)(module)
        if not isinstance(said, Mapping) or not isinstance(said.get("kind"), str):
            raise TraceError(f"--layer {name}: the rule must return a mapping with a 'kind', such as 'Dense'")
        return said

    def weights(module: Any) -> Weights:
        found = {}
        for weight, of in facts(module).get("weights", {}).items():
            path, *view = of if isinstance(of, tuple) else (of,)
            try:
                tensor = module.get_submodule(path.rpartition(".")[0]).__getattr__(path.rpartition(".")[2])
            except AttributeError:
                tensor = None
            if not isinstance(tensor, Tensor):
                raise TraceError(f"--layer {name}: weight {weight!r} is {of!r}; the module has no such one")
            found[weight] = Weight(module, (path,), *view)
        return found

    return LayerType(
        lambda module: facts(module)["kind"],
        settings=lambda module: dict(facts(module).get("settings", {})),
        weights=weights,
    )
