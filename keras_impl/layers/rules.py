"""A user's own rules, for layers that no table has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from experiment.protocols.trace import TraceError, user_object
from keras_impl.layers import registry
from keras_impl.layers.layer_type import LayerType, Weight, Weights


def use(rules: Sequence[str]) -> None:
    """Let `layer_type` know the rules `Class=package.module:rule`.

    Of two for one class Keras's side takes the first and torch's the last. A rule is imported once a layer
    needs it; TraceError then where it fails.

    A rule takes a layer and returns a mapping: `kind`, and where it has them `settings` and `weights`, the
    latter by name to a variable or to (variable, function that takes its array to another layout).
    """
    registry.RULES.clear()
    for text in rules:
        name, _, rule = text.partition("=")
        registry.RULES.setdefault(name, _record(name, rule))


def _record(name: str, rule: str) -> LayerType:
    def facts(layer: Any) -> Mapping[str, Any]:
        said = user_object(rule)(layer)
        if not isinstance(said, Mapping) or not isinstance(said.get("kind"), str):
            raise TraceError(f"--layer {name}: the rule must return a mapping with a 'kind', such as 'Dense'")
        return said

    def weights(layer: Any) -> Weights:
        found = {}
        for weight, of in facts(layer).get("weights", {}).items():
            variable, *view = of if isinstance(of, tuple) else (of,)
            if not isinstance(variable, keras.Variable):
                raise TraceError(f"--layer {name}: weight {weight!r} is {of!r}, a variable was expected")
            found[weight] = Weight(variable, *view)
        return found

    return LayerType(
        lambda layer: facts(layer)["kind"],
        settings=lambda layer, shape: dict(facts(layer).get("settings", {})),
        weights=weights,
    )
