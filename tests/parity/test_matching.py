"""Which layer is whose: by name, by order, by what is alike, and what is said where that is not enough."""

from __future__ import annotations

from typing import Any

import pytest

from parity.traces.apart import Apart, apart
from parity.traces.layers import by_roles, is_pixelwise
from parity.traces.matching import MatchError, Matching, check_covered, match

Layers = list[dict[str, Any]]


def layer(name: str, kind: str, *inputs: str, shape: list[int] | None = None, **weights: list[int]) -> dict:
    return {"name": name, "kind": kind, "inputs": list(inputs), "shape": shape or [4], "weights": weights}


def dense(name: str, *inputs: str, units: int = 4) -> dict:
    return layer(name, "Dense", *inputs, shape=[units], kernel=[4, units], bias=[units])


def conv(name: str, *inputs: str, size: int = 3) -> dict:
    return layer(name, "Conv2D", *inputs, shape=[8, 8, 4], kernel=[size, size, 4, 4])


def swapped(layers: Layers, one: str, other: str) -> Layers:
    """The layers with two of them in each other's place."""
    order = [entry["name"] for entry in layers]
    i, j = order.index(one), order.index(other)
    layers = list(layers)
    layers[i], layers[j] = layers[j], layers[i]
    return layers


def projection(name: str, units: int, bias: bool = True) -> dict:
    shapes = {"kernel": [16, units]} | ({"bias": [units]} if bias else {})
    return layer(name, "Dense", "", **shapes)


def attention(name: str, heads: int = 4) -> dict:
    shapes = {f"{part}_kernel": [16, heads, 16 // heads] for part in ("query", "key", "value")}
    biases = {f"{part}_bias": [heads, 16 // heads] for part in ("query", "key", "value")}
    whole = {"output_kernel": [heads, 16 // heads, 16], "output_bias": [16]}
    return layer(name, "MultiHeadAttention", "", **shapes, **biases, **whole)


# === Layers with weights ===


def test_equal_names_are_the_identity_in_any_order() -> None:
    keras = [dense("a", ""), layer("act", "relu", "a"), dense("b", "act"), layer("drop", "Dropout", "b")]
    found = match(keras, list(reversed(keras)))
    assert found.weighted == {"a": "a", "b": "b"}
    assert found.plain == {"act": "act", "drop": "drop"}
    assert found.unmatched_keras == found.unmatched_torch == found.notes == []


def test_names_below_what_holds_the_network_are_equal_names() -> None:
    keras = [dense("b", ""), dense("a", "b"), dense("c", "a")]
    torch = [dense(f"module.net.{name}", "") for name in ("c", "a", "b")]
    assert match(keras, torch).weighted == {f"module.net.{name}": name for name in "cab"}
    assert match(keras, [dense(name, "") for name in ("x.c", "y.a", "b")]).weighted != {"x.c": "c"}


def test_other_names_go_by_order() -> None:
    keras = [dense("dense", ""), dense("dense_1", "dense"), dense("dense_2", "dense_1")]
    torch = [dense("net.0", ""), dense("net.1", "net.0"), dense("head", "net.1")]
    assert match(keras, torch).weighted == {"net.0": "dense", "net.1": "dense_1", "head": "dense_2"}


def test_equal_names_with_other_shapes_do_not_match_by_name() -> None:
    keras = [dense("a", "", units=4), dense("b", "a", units=7)]
    torch = [dense("b", "", units=4), dense("a", "b", units=7)]
    assert match(keras, torch).weighted == {"b": "a", "a": "b"}


def residual(names: dict[str, str]) -> Layers:
    """Main path of two convolutions, a shortcut of one, their sum, and one more."""
    n = names
    return [
        conv(n["first"], ""),
        layer(n["relu"], "relu", n["first"], shape=[8, 8, 4]),
        conv(n["main"], n["relu"]),
        conv(n["shortcut"], n["relu"], size=1),
        layer(n["add"], "Add", n["main"], n["shortcut"], shape=[8, 8, 4]),
        conv(n["last"], n["add"]),
    ]


KERAS = {key: f"k_{key}" for key in ("first", "relu", "main", "shortcut", "add", "last")}
TORCH = {key: f"t_{key}" for key in KERAS}


def test_a_shortcut_that_runs_earlier_is_found_by_its_shapes_and_inputs() -> None:
    torch = swapped(residual(TORCH), "t_main", "t_shortcut")
    found = match(residual(KERAS), torch)
    assert found.weighted | found.plain == {TORCH[key]: KERAS[key] for key in KERAS}


def test_parallel_layers_of_one_shape_follow_their_inputs_and_not_their_order() -> None:
    keras = [dense("k1", ""), dense("k2", "k1"), dense("ka", "k1"), dense("kb", "k2")]
    torch = [dense("t1", ""), dense("ta", "t1"), dense("t2", "t1"), dense("tb", "t2")]
    # By order t2 would be ka; what comes after it says otherwise only where the shapes do.
    keras[2] = dense("ka", "k1", units=9)
    torch[1] = dense("ta", "t1", units=9)
    assert match(keras, torch).weighted == {"t1": "k1", "ta": "ka", "t2": "k2", "tb": "kb"}


def test_of_layers_that_nothing_tells_apart_the_order_does_and_it_is_said() -> None:
    keras = [dense("k1", ""), dense("k2", ""), conv("k3", "")]
    torch = [conv("t3", ""), dense("t1", ""), dense("t2", "")]
    matching = match(keras, torch)
    assert matching.weighted == {"t3": "k3", "t1": "k1", "t2": "k2"}
    assert matching.notes == [
        "taken in their order, for more than one choice is left: torch's t1 as Keras's k1, t2 as Keras's k2; "
        "else give both the same names, or say --map torch_name=keras_name, once for each"
    ]
    matching = match(keras, torch, {"t1": "k2"})
    assert matching.weighted == {"t3": "k3", "t1": "k2", "t2": "k1"}
    assert matching.notes == []


def test_every_layer_without_a_counterpart_is_told_with_its_nearest() -> None:
    torch = [dense("t1", ""), conv("t2", "t1"), conv("t3", "t2", size=1), dense("t4", "t3", units=7)]
    keras = [dense("k1", ""), conv("k2", "k1", size=5), conv("k3", "k2", size=1)]
    with pytest.raises(MatchError) as error:
        match(keras, torch)
    assert str(error.value).splitlines() == [
        "layers with weights have no counterpart on the other side:",
        "  torch's t2, Conv2D (kernel 3x3x4x4); nearest is Keras's k2: kernel 3x3x4x4 for 5x5x4x4",
        "  torch's t4, Dense (kernel 4x7, bias 7); nearest is Keras's k2: Dense for Conv2D, "
        "kernel 4x7 for 5x5x4x4, bias",
        "  Keras's k2, Conv2D (kernel 5x5x4x4); nearest is torch's t2: kernel 5x5x4x4 for 3x3x4x4",
        "The two must have the same layers with weights, of the same shapes.",
    ]


def test_of_layers_alike_the_order_tells_which_is_without_a_counterpart() -> None:
    keras = [dense("k1", ""), conv("k2", "k1"), dense("k3", "k2"), conv("k4", "k3", size=5)]
    torch = [dense("t1", ""), conv("t2", "t1"), conv("t3", "t2", size=5)]
    with pytest.raises(MatchError, match=r"  Keras's k3, Dense \(kernel 4x4, bias 4\)") as error:
        match(keras, torch)
    assert "k1" not in str(error.value)
    assert "torch's" not in str(error.value).splitlines()[1].partition(";")[0]


def test_what_has_no_rule_is_told_for_both_sides_at_once() -> None:
    power = layer("power", "Power", "", exponent=[6])
    scale = layer("blocks.0", "Scale", "", gamma=[1, 6])
    with pytest.raises(MatchError) as error:
        check_covered([power], [scale, {**power, "name": "blocks.1"}])
    assert str(error.value).splitlines() == [
        "no rule says how to compare the weights of",
        "  Keras's power, Power (exponent 6)",
        "  torch's blocks.0, Scale (gamma 1x6)",
        "  torch's blocks.1, Power (exponent 6)",
        "Write one for each: --layer Power=package.module:rule (see --help); likewise for Scale.",
    ]
    check_covered([], [])


def test_a_convolution_of_single_pixels_is_a_dense_layer() -> None:
    def pixelwise(name: str, stride: int) -> dict:
        settings = {"strides": [stride, stride], "groups": 1, "padding": [[0, 0], [0, 0]]}
        return {**conv(name, "", size=1), "settings": settings}

    plain = layer("t", "Dense", "", shape=[8, 8, 4], kernel=[4, 4])
    assert match([pixelwise("k", stride=1)], [plain]).weighted == {"t": "k"}
    assert is_pixelwise(pixelwise("k", stride=1))
    # With other strides it is matched, and no Dense: the structure rung tells.
    assert match([pixelwise("k", stride=2)], [plain]).weighted == {"t": "k"}
    assert not is_pixelwise(pixelwise("k", stride=2))


def test_parallel_layers_are_told_apart_by_the_activations_they_end_in() -> None:
    keras = [dense("k1", ""), dense("k2", ""), layer("ka", "relu", "k1"), layer("kb", "tanh", "k2")]
    torch = [dense("t1", ""), dense("t2", ""), layer("tb", "tanh", "t1"), layer("ta", "relu", "t2")]
    found = match(keras, torch)
    assert found.weighted == {"t1": "k2", "t2": "k1"}
    assert found.plain == {"tb": "kb", "ta": "ka"}


def test_an_activation_in_the_midst_of_arithmetic_is_not_matched_with_another() -> None:
    keras = [layer("plus", "Add", "k"), layer("k/relu6", "relu6", "plus")]
    found = plain(keras, [layer("hardsigmoid#1", "hard_sigmoid", "t")])
    assert found.plain == {}


def test_a_chain_of_sums_is_walked_through_once() -> None:
    def chain(side: str) -> Layers:
        layers = [dense(f"{side}0", "")]
        for i in range(60):
            layers.append(layer(f"{side}sum{i}", f"{side}Sum", layers[-1]["name"], layers[-1]["name"]))
        return [
            *layers,
            dense(f"{side}1", layers[-1]["name"]),
            dense(f"{side}2", layers[-1]["name"], units=9),
        ]

    assert match(chain("k"), chain("t")).weighted == {"t0": "k0", "t1": "k1", "t2": "k2"}


def norm(name: str, *inputs: str, **weights: list[int]) -> dict:
    return layer(name, "LayerNormalization", *inputs, **weights)


@pytest.mark.parametrize("bare", ["Keras", "torch"])
def test_a_norm_without_scale_and_shift_is_matched_for_the_structure_to_tell(bare: str) -> None:
    vectors = {"gamma": [4], "beta": [4]}
    keras = [dense("a", ""), norm("n", "a", **({} if bare == "Keras" else vectors)), dense("b", "n")]
    torch = [dense("0", ""), norm("1", "0", **({} if bare == "torch" else vectors)), dense("2", "1")]
    assert match(keras, torch).weighted == {"0": "a", "1": "n", "2": "b"}


def test_a_batch_norm_without_statistics_is_matched_for_the_structure_to_tell() -> None:
    vectors = {"gamma": [4], "beta": [4]}
    statistics = {"moving_mean": [4], "moving_variance": [4]}
    keras = [dense("a", ""), layer("n", "BatchNormalization", "a", **vectors, **statistics), dense("b", "n")]
    torch = [dense("0", ""), layer("1", "BatchNormalization", "0", **vectors), dense("2", "1")]
    assert match(keras, torch).weighted == {"0": "a", "1": "n", "2": "b"}


def test_weights_that_one_side_uses_twice_are_told() -> None:
    keras = [dense("a", ""), dense("b", "a")]
    with pytest.raises(MatchError, match="torch uses the weights of one more than once"):
        match(keras, [dense("one", ""), layer("one@2", "Dense", "one")])


# === What the user says ===


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"t9": "k1"}, r"--map t9=k1: the torch model runs no layer 't9'\.\nIt runs t1, t2\."),
        ({"t1": "k9"}, r"--map t1=k9: the Keras model runs no layer 'k9'\.\nIt runs k1, k2\."),
        ({"t1": "k2"}, r"--map t1=k2: weights of other shapes, Dense .* for Keras's Conv2D"),
        ({"t1": "k1", "t2": "k1"}, "weights of other shapes|to more than one torch layer"),
    ],
)
def test_a_wrong_map_is_said(given: dict[str, str], said: str) -> None:
    with pytest.raises(MatchError, match=said):
        match([dense("k1", ""), conv("k2", "k1")], [dense("t1", ""), conv("t2", "t1")], given)


def test_two_torch_layers_cannot_have_one_of_keras() -> None:
    with pytest.raises(MatchError, match="gives Keras's k1 to more than one torch layer"):
        match([dense("k1"), dense("k2")], [dense("t1"), dense("t2")], {"t1": "k1", "t2": "k1"})


def test_a_map_may_name_layers_without_weights() -> None:
    keras = [dense("k", ""), layer("mean", "GlobalAveragePooling2D", "k")]
    torch = [dense("t", ""), layer("pool", "AdaptiveAvgPool2d", "t")]
    assert match(keras, torch).plain == {}
    assert match(keras, torch, {"pool": "mean"}).plain == {"pool": "mean"}


# === Layers without weights ===


def plain(keras: Layers, torch: Layers) -> Matching:
    return match([dense("k", ""), *keras], [dense("t", ""), *torch])


def test_a_functional_softmax_is_keras_activation_layer() -> None:
    found = plain([layer("probabilities", "softmax", "k")], [layer("softmax#1", "softmax", "t")])
    assert found.plain == {"softmax#1": "probabilities"}


def test_layers_without_a_counterpart_are_passed_through_and_noted() -> None:
    keras = [layer("drop", "Dropout", "k"), layer("act", "relu", "drop"), layer("soft", "softmax", "act")]
    torch = [
        layer("identity", "Identity", "t"),
        layer("relu#1", "relu", "identity"),
        layer("scale", "Scale", "relu#1"),
        layer("soft", "softmax", "scale"),
    ]
    found = plain(keras, torch)
    assert found.plain == {"relu#1": "act", "soft": "soft"}
    assert found.unmatched_keras == ["drop"]
    assert found.unmatched_torch == ["identity", "scale"]
    assert found.notes == [
        "not compared by itself: Keras's drop (Dropout)",
        "not compared by itself: torch's scale (Scale)",
    ]


def test_branches_are_told_apart_by_their_inputs() -> None:
    keras = [dense("k1", ""), dense("k2", ""), layer("a", "relu", "k1"), layer("b", "relu", "k2")]
    torch = [dense("t1", ""), dense("t2", ""), layer("relu#1", "relu", "t2"), layer("relu#2", "relu", "t1")]
    assert match(keras, torch).plain == {"relu#1": "b", "relu#2": "a"}


def test_another_activation_in_the_same_place_is_matched_so_that_it_is_found() -> None:
    found = plain([layer("k/activation", "relu", "k")], [layer("gelu#1", "gelu", "t")])
    assert found.plain == {"gelu#1": "k/activation"}
    assert plain([layer("flat", "Flatten", "k")], [layer("relu#1", "relu", "t")]).plain == {}


def test_an_activation_moved_past_a_layer_with_weights_is_not_matched() -> None:
    keras = [dense("k1", ""), layer("act", "relu", "k1"), dense("k2", "act")]
    torch = [dense("t1", ""), dense("t2", "t1"), layer("relu#1", "relu", "t2")]
    found = match(keras, torch)
    assert found.weighted == {"t1": "k1", "t2": "k2"}
    assert found.plain == {}


def test_inputs_that_are_not_known_are_made_up_for_where_only_one_layer_fits() -> None:
    pool = layer("pool", "GlobalAveragePooling2D", "", shape=[3])
    add = layer("Add#1", "Add", "t")
    mean = layer("mean#1", "GlobalAveragePooling2D", "Add#1", shape=[3])
    assert plain([pool], [add, mean]).plain == {"mean#1": "pool"}
    twice = [mean, {**mean, "name": "mean#2"}]
    assert plain([pool, {**pool, "name": "pool_1"}], [add, *twice]).plain == {}


def test_a_further_call_of_a_layer_with_weights_is_the_others_further_call() -> None:
    again = [layer("k@2", "Dense", "act"), layer("act", "relu", "k")]
    found = plain(again, [layer("t@2", "Dense", "relu"), layer("relu", "relu", "t")])
    assert found.plain == {"t@2": "k@2", "relu": "act"}
    one_module = [layer("relu", "relu", "t"), layer("relu@2", "relu", "relu")]
    two_layers = [layer("act", "relu", "k"), layer("act_1", "relu", "act")]
    assert plain(two_layers, one_module).plain == {"relu": "act", "relu@2": "act_1"}


# === Layers that differ in an option, and branches alike ===


def test_layers_without_a_bias_or_a_scale_are_matched_so_that_it_is_told() -> None:
    keras = [dense("a", ""), layer("norm", "BatchNormalization", "a", beta=[4], moving_mean=[4])]
    torch = [
        layer("fc", "Dense", "", kernel=[4, 4]),
        layer("bn", "BatchNormalization", "fc", gamma=[4], beta=[4], moving_mean=[4]),
    ]
    assert match(keras, torch).weighted == {"fc": "a", "bn": "norm"}


def test_other_strides_do_not_make_another_layer_of_a_convolution_of_single_pixels() -> None:
    def strided(name: str, strides: int) -> dict:
        return {**conv(name, "", size=1), "settings": {"strides": [strides, strides]}}

    keras = [strided("a", 2), conv("b", "a", size=1)]
    assert match(keras, [strided("c", 1), conv("d", "c", size=1)]).weighted == {"c": "a", "d": "b"}


def branches(order: str, prefix: str) -> Layers:
    """Three branches of single pixels from one layer: plain, before a larger convolution, and pooled."""
    made = {
        "plain": [conv(f"{prefix}plain", f"{prefix}stem", size=1)],
        "deep": [
            conv(f"{prefix}deep", f"{prefix}stem", size=1),
            conv(f"{prefix}deeper", f"{prefix}deep"),
        ],
        "pooled": [
            layer(f"{prefix}pool", "AveragePooling2D", f"{prefix}stem", shape=[8, 8, 4]),
            conv(f"{prefix}pooled", f"{prefix}pool", size=1),
        ],
    }
    return [conv(f"{prefix}stem", "", size=7), *(part for name in order.split() for part in made[name])]


def test_branches_alike_are_told_apart_by_what_lies_around_them() -> None:
    found = match(branches("plain deep pooled", "k_"), branches("pooled deep plain", "t_"))
    assert found.weighted == {
        f"t_{name}": f"k_{name}" for name in ("stem", "plain", "deep", "deeper", "pooled")
    }


# === Layers that one side has in parts ===


def test_attention_is_traced_in_parts_where_torch_has_them() -> None:
    parts = [projection(f"at.{name}", 16) for name in ("q", "k", "v", "out")]
    assert apart([attention("mha")], parts) == Apart(keras={"mha": 3})
    assert apart(parts, [attention("mha")]) == Apart(torch={"mha": 3})


def test_packed_projections_are_traced_in_parts() -> None:
    packed = [projection("at.qkv", 48), projection("at.out", 16)]
    assert apart([attention("mha")], packed) == Apart({"mha": 3}, {"at.qkv": 3})
    apart_on_both = [projection("q", 16), projection("kv", 32), projection("out", 16)]
    assert apart([attention("mha")], apart_on_both) == Apart({"mha": 3}, {"kv": 2})


def test_of_alike_layers_those_named_as_packed_are_taken() -> None:
    torch = [projection("fc", 48), projection("at.qkv", 48), projection("at.out", 16)]
    assert apart([projection("mlp", 48), attention("mha")], torch) == Apart({"mha": 3}, {"at.qkv": 3})


def test_what_both_sides_have_stays_whole() -> None:
    assert not apart([attention("mha"), projection("a", 48)], [attention("at"), projection("b", 48)])
    assert not apart([projection("a", 48, bias=False)], [projection("b", 15)])


@pytest.mark.parametrize(
    "names", [("at.v", "at.k", "at.q"), ("to_k", "to_q", "to_v"), ("key_proj", "value_proj", "query_proj")]
)
def test_projections_are_matched_by_their_roles(names: tuple[str, ...]) -> None:
    ordered = [layer["name"] for layer in by_roles([dense("first"), *map(dense, names), dense("out")])]
    roles = [name.rsplit(".")[-1].removeprefix("to_")[0] for name in ordered[1:4]]
    assert (ordered[0], roles, ordered[-1]) == ("first", ["q", "k", "v"], "out")


def test_other_layers_keep_their_order() -> None:
    names = ["kernel_net", "vgg", "quick", "a.q", "b.k", "c.v"]
    assert [layer["name"] for layer in by_roles(map(dense, names))] == names
