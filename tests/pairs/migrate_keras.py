"""Small Keras models, one or more for each source rule, and what they compute: python migrate_keras.py OUT.

OUT/NAME/ gets the model's graph, the model (model.keras), and reference.npz: inputs, outputs in evaluation
and in training, gradients, and the outputs after a few steps of Adam, in float64.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

STEPS = 5


def sequential(*body, shape=(12, 12, 3)):
    return keras.Sequential([keras.Input(shape), *body])


def head(x, classes=3):
    return layers.Dense(classes, activation="softmax", name="head")(x)


def convolutions():
    return sequential(
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="1_conv"),
        layers.Conv2D(6, 4, padding="same", activation="gelu"),
        layers.Conv2D(6, (3, 1), dilation_rate=(2, 1), groups=2, activation="leaky_relu"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="silu"),
        layers.SeparableConv2D(5, 3, padding="same", activation="hard_sigmoid", name="separable"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
        shape=(13, 12, 3),
    )


def sequences_of_convolutions():
    return sequential(
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="tanh"),
        layers.MaxPooling1D(2),
        layers.SeparableConv1D(6, 3, padding="same"),
        layers.SpatialDropout1D(0.0),
        layers.BatchNormalization(),
        layers.Conv1DTranspose(4, 3, strides=2, padding="same", activation="elu"),
        layers.AveragePooling1D(3, strides=2, padding="same"),
        layers.UpSampling1D(2),
        layers.ZeroPadding1D(1),
        layers.Cropping1D((1, 0)),
        layers.Flatten(),
        layers.Dense(2),
        shape=(12, 3),
    )


def volumes():
    return sequential(
        layers.Conv3D(3, 2, strides=2, padding="same", activation="selu"),
        layers.Conv3DTranspose(2, 2, strides=2),
        layers.GlobalMaxPooling3D(),
        layers.Dense(2),
        shape=(5, 6, 6, 2),
    )


def transposed():
    return sequential(
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(4, 2, strides=3, padding="same"),
        layers.Conv2DTranspose(3, 4, strides=2),
        layers.GlobalAveragePooling2D(),
        shape=(5, 4, 2),
    )


def pools():
    inputs = keras.Input((9, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    branches = [
        layers.MaxPooling2D(2, padding="same")(x),
        layers.AveragePooling2D(2, padding="same")(x),
        layers.MaxPooling2D(3, strides=2, padding="same")(x),
        layers.AveragePooling2D(3, strides=2, padding="same")(x),
    ]
    x = layers.Concatenate()(branches)
    x = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, head(x))


def open_sizes():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.AveragePooling2D(3, strides=2, padding="same")(x)
    return keras.Model(inputs, head(layers.GlobalAveragePooling2D()(x)))


def norms():
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(8, 3, use_bias=False)(inputs)
    x = layers.BatchNormalization(epsilon=1e-2, momentum=0.8, scale=False)(x)
    x = layers.ReLU(max_value=6.0)(x)
    x = layers.BatchNormalization(center=False)(x)
    x = layers.LayerNormalization(epsilon=1e-4)(x)
    x = layers.GroupNormalization(4)(x)
    x = layers.UnitNormalization()(x)
    x = layers.RMSNormalization()(x)
    x = layers.LayerNormalization(axis=[1, 2, 3])(x)
    x = layers.Flatten()(x)
    x = layers.BatchNormalization()(x)
    return keras.Model(inputs, head(x))


def frozen():
    base = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()], name="base"
    )
    base.trainable = False
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(base(inputs, training=False))
    return keras.Model(inputs, head(x))


def activations():
    x = inputs = keras.Input((8,))
    for name in ("relu", "relu6", "elu", "selu", "silu", "mish", "hard_silu", "gelu", "sigmoid", "tanh"):
        x = layers.Dense(8, activation=name)(x)
    for name in ("softplus", "softsign", "log_sigmoid", "exponential", "hard_tanh", "tanh_shrink", "celu"):
        x = layers.Activation(name)(layers.Dense(8)(x))
    x = layers.LeakyReLU(0.3)(layers.Dense(8)(x))
    x = layers.ELU(0.5)(layers.Dense(8)(x))
    return keras.Model(inputs, layers.Activation("log_softmax")(layers.Dense(3)(x)))


def slopes():
    return sequential(
        layers.Conv2D(4, 3),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Flatten(),
        layers.Dense(1, activation="sigmoid"),
    )


def merges():
    inputs = keras.Input((6, 6, 3))
    a, b = (layers.Conv2D(4, 3, name=name)(inputs) for name in ("left", "right"))
    x = layers.Add()([a, b])
    x = layers.Multiply()([x, layers.Subtract()([a, b])])
    x = layers.Maximum()([x, layers.Average()([a, b])])
    x = layers.Concatenate(axis=1)([x, layers.Minimum()([a, b])])
    x = layers.Flatten()(x)
    y = layers.Dense(x.shape[-1], activation="tanh")(x)
    alike = layers.Dot(-1, normalize=True)([x, y])
    steps = layers.Reshape((4, -1))(x), layers.Reshape((4, -1))(y)
    angles = layers.Flatten()(layers.Dot(2, normalize=True)(steps))
    return keras.Model(inputs, layers.Concatenate()([layers.Dot(1)([x, y]), alike, angles]))


def shapes():
    inputs = keras.Input((6, 4))
    x = layers.Permute((2, 1))(inputs)
    x = layers.Reshape((4, 3, 2))(x)
    x = layers.Conv2D(4, 2)(x)
    x = layers.ZeroPadding2D(((1, 0), (0, 2)))(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Cropping2D(((1, 0), (2, 1)))(x)
    x = layers.Reshape((-1,))(x)
    x = layers.Dense(6)(x)
    x = layers.RepeatVector(3)(x)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Reshape((1, 1, 6))(x)
    return keras.Model(inputs, layers.Flatten()(layers.Conv2D(2, 1)(x)))


def preprocessing():
    normalise = layers.Normalization(mean=(0.4, 0.5, 0.6), variance=(0.04, 0.09, 0.16))
    return sequential(
        layers.Rescaling(1 / 255, offset=0.1),
        normalise,
        layers.Conv2D(4, 3),
        layers.Resizing(5, 7),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    )


def text():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(8, 6)(inputs)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    x = layers.Bidirectional(layers.GRU(4), merge_mode="sum")(x)
    return keras.Model(inputs, head(x))


def recurrent():
    inputs = keras.Input((6, 3))
    a = layers.LSTM(4, return_sequences=True)(inputs)
    b = layers.GRU(4, go_backwards=True)(a)
    c = layers.GRU(4, reset_after=False)(a)
    d = layers.SimpleRNN(4)(a)
    e, hidden, cell = layers.LSTM(4, return_state=True)(a)
    f = layers.SimpleRNN(4, activation="relu")(inputs, initial_state=hidden)
    g = layers.GRU(3, activation="softsign", recurrent_activation="hard_sigmoid")(a)
    return keras.Model(inputs, head(layers.Concatenate()([b, c, d, e, hidden, cell, f, g])))


def masked():
    inputs = keras.Input((6, 2))
    zeros = layers.Masking(0.5)(ops.maximum(inputs, 0.5))
    x = layers.LSTM(4, return_sequences=True)(zeros)
    steps = layers.TimeDistributed(layers.Reshape((2, 2)))(x)
    x = layers.Concatenate()(
        [layers.GlobalAveragePooling1D()(x), layers.Flatten()(steps), layers.Flatten()(zeros)]
    )
    return keras.Model(inputs, head(x))


def attention():
    inputs = keras.Input((5, 8))
    x = layers.LayerNormalization()(inputs)
    x = layers.Add()([layers.MultiHeadAttention(2, 4)(x, x), inputs])
    y = layers.MultiHeadAttention(2, 3, value_dim=5)(x, x, use_causal_mask=True)
    z = layers.Attention()([x, y])
    return keras.Model(inputs, head(layers.GlobalMaxPooling1D()(z)))


def attention_masked():
    inputs = keras.Input((6,), dtype="int32")
    x, y = (layers.Embedding(8, 6, mask_zero=True)(inputs) for _ in range(2))
    attended = [
        *(layers.AdditiveAttention()([x, x]), layers.Attention(score_mode="concat")([x, x])),
        layers.MultiHeadAttention(2, 5)(y, y),  # which takes the mask from what it is given
    ]
    return keras.Model(inputs, head(layers.Concatenate()([layers.Flatten()(one) for one in attended])))


def operations():
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 3)(inputs)
    gate = ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True))
    x = x * gate + 1.0
    x = ops.relu(ops.maximum(x, 0.5)) / 2.0 - ops.flip(x, axis=-1)
    y = ops.reshape(x, (-1, 16, 4))
    y = ops.transpose(y, (0, 2, 1))
    y = ops.matmul(y, ops.transpose(y, (0, 2, 1)))
    y = ops.concatenate([y[:, 0], y[:, -1, :2]], axis=-1)
    return keras.Model(inputs, head(ops.square(y)))


def several():
    image, facts = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="facts")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    x = layers.Concatenate()([x, layers.Dense(4, activation="relu")(facts)])
    outputs = {"kind": head(x), "size": layers.Dense(1, name="size")(x)}
    return keras.Model([image, facts], outputs)


def nested():
    def block(filters, channels):
        inputs = keras.Input((8, 8, channels))
        x = layers.Conv2D(filters, 3, padding="same", name="conv")(inputs)
        x = layers.BatchNormalization(name="bn")(x)
        return keras.Model(inputs, layers.ReLU()(x))

    inputs = keras.Input((8, 8, 3))
    shared = layers.Dense(5, activation="relu", name="shared")
    x = block(6, 4)(block(4, 3)(inputs))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Add()([shared(x[:, :3]), shared(x[:, 3:])])
    outputs = keras.Sequential([keras.Input((5,)), layers.Dense(3, activation="softmax")], name="classifier")(
        x
    )
    return keras.Model(inputs, outputs)


def residual_blocks():
    x = inputs = keras.Input((16, 16, 3))
    for number, (filters, stride) in enumerate([(4, 1), (4, 1), (8, 2), (8, 1), (8, 1)], 1):
        name = f"block{number}"
        shortcut = x
        if stride > 1 or x.shape[-1] != filters:
            shortcut = layers.Conv2D(filters, 1, strides=stride, name=f"{name}_0_conv")(x)
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_1_conv")(
            x
        )
        x = layers.BatchNormalization(name=f"{name}_1_bn")(x)
        x = layers.ReLU(name=f"{name}_1_relu")(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
        gate = layers.Conv2D(filters, 1, activation="sigmoid", name=f"{name}_excite")(gate)
        x = layers.Multiply(name=f"{name}_scale")([x, gate])
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.Model(inputs, head(layers.GlobalAveragePooling2D()(x)))


def unnamed_blocks():
    x = inputs = keras.Input((12, 12, 3))
    for filters in (4, 6, 8, 8):
        a = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))
        b = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 1)(x)))
        x = layers.Concatenate()([a, b])
    return keras.Model(inputs, head(layers.Flatten()(x)))


def random_layers():
    return sequential(
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.1),
        layers.RandomTranslation(0.1, 0.2),
        layers.RandomZoom(0.2),
        layers.RandomContrast(0.2),
        layers.RandomBrightness(0.2),
        layers.Conv2D(4, 3),
        layers.GaussianNoise(0.1),
        layers.SpatialDropout2D(0.2),
        layers.Dropout(0.3),
        layers.Dropout(0.3, noise_shape=(None, 1, 1, 1)),
        layers.GaussianDropout(0.2),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    )


RANDOM = (random_layers,)  # alike in evaluation alone
MODELS = (
    *(convolutions, sequences_of_convolutions, volumes, transposed, pools, open_sizes, norms, frozen),
    *(activations, slopes, merges, shapes, preprocessing, text, recurrent, attention, operations, several),
    *(nested, residual_blocks, unnamed_blocks, random_layers, masked, attention_masked),
)


def pattern(shape):
    """A weight for each output, so that no error cancels another."""
    return np.cos(np.arange(np.prod(shape), dtype="float64")).reshape(shape)


def unsettle(model):
    """Move the weights that begin as zeros or ones, from which many faults do not show."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        value = np.asarray(weight)
        if "seed" not in weight.path and value.size and (value == value.flat[0]).all():
            weight.assign(value + generator.uniform(-0.2, 0.2, value.shape) * (abs(value.flat[0]) or 1))


def main(out: Path) -> None:
    import tensorflow as tf

    from keras_impl.layers import weight_layout
    from keras_impl.trace import graph

    keras.config.set_floatx("float64")
    for build in MODELS:
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        model = build()
        unsettle(model)
        reader = graph._Reader()
        read = reader.graph(model)
        folder = out / build.__name__
        graph.Migration(read, reader.arrays, build.__name__, None, []).write(folder)
        model.save(folder / "model.keras")
        generator = np.random.default_rng(1)
        inputs = []
        for tensor in model.inputs:
            shape = [4, *(11 if size is None else size for size in tensor.shape[1:])]
            whole = "int" in tensor.dtype
            inputs.append(generator.integers(0, 8, shape) if whole else generator.uniform(size=shape))
        given = inputs[0] if len(inputs) == 1 else inputs
        found = {f"input/{i}": array for i, array in enumerate(inputs)}

        def keep(stage, found=found, model=model, given=given):
            outputs = keras.tree.flatten(model(given, training=False))
            found |= {f"{stage}/{i}": np.asarray(output) for i, output in enumerate(outputs)}

        keep("eval")
        if build not in RANDOM:
            optimizer = keras.optimizers.Adam(1e-2)
            for step in range(STEPS):
                with tf.GradientTape() as tape:
                    outputs = keras.tree.flatten(model(given, training=True))
                    loss = tf.add_n([tf.reduce_sum(output * pattern(output.shape)) for output in outputs])
                # An Embedding's comes in slices, of which Keras's Adam squares each on its own.
                sliced = tape.gradient(loss, model.trainable_variables)
                gradients = [tf.convert_to_tensor(gradient) for gradient in sliced]
                if step == 0:
                    found |= {f"train/{i}": np.asarray(output) for i, output in enumerate(outputs)}
                    by_id = {id(v): g for v, g in zip(model.trainable_variables, gradients, strict=True)}
                    found |= of_layers(model, by_id, weight_layout)
                optimizer.apply(gradients, model.trainable_variables)
            keep("final")
        np.savez(folder / "reference.npz", **found)


def of_layers(model, by_id, weight_layout, path=""):
    """Every weight's gradient, as the graph names the weight."""
    from keras_impl.trace.graph import _named_weights

    found = {}
    for layer in model.layers:
        here = f"{path}{layer.name}"
        if isinstance(layer, keras.Model):
            found |= of_layers(layer, by_id, weight_layout, f"{here}/")
            continue
        for name, weight in _named_weights(layer).items():
            gradient = by_id.get(id(weight.variable))
            if gradient is not None:
                found[f"gradient/{here}/{name}"] = weight.of(keras.ops.convert_to_tensor(gradient))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
