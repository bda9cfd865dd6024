"""Keras models as users compile them, and their packages: python migrated.py keras|torch OUT.

keras: OUT/NAME/graph/ gets each model's graph and its .keras file. torch: OUT/NAME/package_NAME/ gets the
package, and OUT/NAME/answer.json what was said of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def augmented():
    from keras import layers

    return _sequential(
        *(layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1)),
        layers.RandomContrast(0.2),
        layers.Rescaling(1 / 127.5, -1),
        layers.Conv2D(4, 3),
        layers.MaxPooling2D(3, 2, padding="same"),
        *(layers.GaussianNoise(0.1), layers.AlphaDropout(0.1), layers.Dropout(0.3)),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
        shape=(16, 16, 3),
    )


def unet():
    import keras
    from keras import layers

    inputs = keras.Input((16, 16, 3))
    wide = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(wide))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="hard_swish")(layers.Concatenate()([wide, x]))
    model = keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def siamese():
    import keras
    from keras import layers, ops

    encoder = _sequential(layers.Dense(8, activation="tanh"), layers.LayerNormalization(), shape=(12,))
    left, right = keras.Input((12,), name="left"), keras.Input((12,), name="right")
    apart = ops.normalize(ops.abs(encoder(left) - encoder(right)), axis=-1)
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(apart))
    model.compile("adamw", "binary_crossentropy", metrics=["accuracy"])
    return model


def constants():
    import keras
    import numpy as np
    from keras import layers, ops

    inputs = keras.Input((12, 12, 3))
    x = (inputs - np.array([0.4, 0.5, 0.6], "float32")) / np.array([0.2, 0.2, 0.3], "float32")
    x = layers.BatchNormalization()(layers.Conv2D(8, 3)(x))
    one, other = ops.split(x, 2, axis=-1)
    x = ops.mean(one * ops.sigmoid(other), axis=(1, 2)) + np.linspace(0, 1, 4, dtype="float32")
    x = ops.logsumexp(ops.stack([x, ops.arctan(x)], axis=1), axis=1)
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(x))


def transformer():
    import keras
    from keras import layers

    inputs = keras.Input((12,), dtype="int32")
    x = layers.Embedding(30, 16)(inputs)
    for _ in range(2):
        h = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 4, dropout=0.1)(h, h, use_causal_mask=True)])
        h = layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(16)(h)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def each_step():
    from keras import layers

    return _sequential(
        layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu")),
        layers.TimeDistributed(layers.MaxPooling2D()),
        layers.TimeDistributed(layers.Flatten()),
        layers.TimeDistributed(layers.Dense(6)),
        *(layers.LSTM(5), layers.Dense(2)),
        shape=(4, 12, 12, 3),
    )


def several():
    import keras
    from keras import layers

    inputs = keras.Input((10, 10, 1))
    x = layers.Conv2D(8, 5, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.Flatten()(layers.ReLU(6.0)(layers.BatchNormalization(scale=False)(x)))
    outputs = {
        "kind": layers.Dense(3, activation="softmax", name="kind")(x),
        "size": layers.Dense(1, name="size")(x),
    }
    model = keras.Model(inputs, outputs)
    loss = {"size": "mse", "kind": "sparse_categorical_crossentropy"}  # not in the outputs' order
    model.compile("nadam", loss, loss_weights={"size": 0.3, "kind": 2.0}, metrics={"kind": "accuracy"})
    return model


def partly():
    """Losses by the names of outputs in a list, one output without."""
    import keras
    from keras import layers

    inputs = keras.Input((6,))
    heads = [("second", 3, "softmax"), ("first", 2, None), ("free", 2, None)]
    outputs = [layers.Dense(units, activation=act, name=name)(inputs) for name, units, act in heads]
    model = keras.Model(inputs, outputs)
    losses = {"first": "mse", "second": "sparse_categorical_crossentropy"}
    model.compile("adam", losses, loss_weights={"first": 0.5}, metrics={"second": ["accuracy"]})
    return model


def rows():
    """Classes as rows of zeros and a one, with a metric of them."""
    import keras
    from keras import layers

    model = _sequential(
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2),
        *(layers.LeakyReLU(0.2), layers.GlobalMaxPooling2D(keepdims=True), layers.Conv2D(3, 1)),
        *(layers.Reshape((3,)), layers.Softmax()),
        shape=(6, 6, 2),
    )
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(keras.optimizers.Adagrad(0.05), loss, metrics=["categorical_accuracy"])
    return model


def focal():
    import keras
    from keras import layers

    model = _sequential(layers.Dense(4, activation="softmax"), shape=(6,))
    loss, top = keras.losses.CategoricalFocalCrossentropy(), "top_k_categorical_accuracy"
    model.compile("adam", loss, metrics=[top, keras.metrics.TopKCategoricalAccuracy(2, name="top2")])
    return model


def losses():
    """An output for each of Keras's losses."""
    import keras
    from keras import layers

    inputs = keras.Input((6,))
    softmax, positive, binary, linear = "softmax", "softplus", "sigmoid", None
    of = {
        "focal": (softmax, keras.losses.CategoricalFocalCrossentropy(alpha=0.3, label_smoothing=0.1)),
        "twofocal": (binary, keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, gamma=1.5)),
        "logits": (linear, keras.losses.BinaryFocalCrossentropy(from_logits=True)),
        "generalized": (softmax, keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7)),
        "margin": (linear, "categorical_hinge"),
        "hinge": (linear, keras.losses.Hinge()),
        "squared": ("tanh", "squared_hinge"),
        "divergence": (softmax, "kl_divergence"),
        "counts": (positive, "poisson"),
        "cosh": (linear, keras.losses.LogCosh()),
        "percent": (linear, "mean_absolute_percentage_error"),
        "logarithm": (positive, keras.losses.MeanSquaredLogarithmicError()),
        "angle": (linear, keras.losses.CosineSimilarity()),
        "dice": (binary, keras.losses.Dice()),
        "tversky": (binary, keras.losses.Tversky(alpha=0.3, beta=0.6)),
        "summed": (linear, keras.losses.MeanSquaredError(reduction="sum")),
    }
    outputs = {name: layers.Dense(3, activation=act, name=name)(inputs) for name, (act, _) in of.items()}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {name: loss for name, (_, loss) in of.items()})
    return model


def unwritten():
    import keras
    from keras import layers

    model = _sequential(layers.Dense(4), layers.UnitNormalization(), shape=(6,))
    model.compile("adam", keras.losses.Circle())
    return model


def averaged():
    import keras

    optimizer = keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9)
    return _compiled(optimizer)


def sgd():
    import keras

    return _compiled(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3))


def rmsprop():
    import keras

    return _compiled(keras.optimizers.RMSprop(1e-2, momentum=0.5, centered=True))


def adadelta():
    import keras

    return _compiled(keras.optimizers.Adadelta(0.5))


def adamax():
    import keras

    return _compiled(keras.optimizers.Adamax(1e-2))


def lion():
    import keras

    return _compiled(keras.optimizers.Lion(1e-3, weight_decay=0.01))


def scheduled():
    import keras
    from keras import layers

    model = _sequential(
        layers.Conv1D(8, 3, padding="causal", dilation_rate=2),
        layers.PReLU(shared_axes=[1]),
        layers.Bidirectional(layers.GRU(4, return_sequences=True)),
        *(layers.Bidirectional(layers.LSTM(3), merge_mode="sum"), layers.Dense(2)),
        shape=(20, 5),
    )
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 50, warmup_steps=2, warmup_target=2e-2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate, clipnorm=0.05), loss)
    return model


def masked():
    import keras
    from keras import layers

    inputs = keras.Input((9,), dtype="int32")
    x = layers.Embedding(8, 6, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.Dropout(0.1)(x)
    x = layers.GRU(5, return_sequences=True, go_backwards=True)(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.LSTM(4)(x)))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def masked_mean():
    import keras
    from keras import layers, ops

    inputs = keras.Input((7, 2))
    x = layers.Masking(0.0)(ops.relu(inputs - 0.5))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="ave")(x)
    x = layers.SimpleRNN(6, return_sequences=True)(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def recurrent():
    import keras
    from keras import layers

    inputs, image = keras.Input((7,), dtype="int32"), keras.Input((12,))
    x = layers.Embedding(9, 6, mask_zero=True)(inputs)
    x = layers.GRU(5, reset_after=False, return_sequences=True, dropout=0.1, recurrent_dropout=0.2)(x)
    x = layers.Bidirectional(layers.GRU(4, reset_after=False, return_sequences=True))(x)
    x = layers.LSTM(4, activation="relu")(x, initial_state=[layers.Dense(4)(image), layers.Dense(4)(image)])
    return keras.Model([inputs, image], layers.Dense(3, activation="softmax")(x))


def cells():
    """Cells of recurrent layers, one and several on one another."""
    from keras import layers

    stacked = layers.RNN([layers.LSTMCell(6, dropout=0.1), layers.GRUCell(4)], return_sequences=True)
    head = layers.RNN(layers.SimpleRNNCell(5)), layers.Dense(3, activation="softmax")
    return _sequential(stacked, *head, shape=(7, 5))


def autoencoder():
    """Images out, in several channels, against images."""
    from keras import layers

    model = _sequential(
        layers.Conv2D(8, 3, strides=2, padding="same"),
        *(layers.LeakyReLU(), layers.UpSampling2D(interpolation="bilinear")),
        layers.Conv2D(3, 3, padding="same", activation="sigmoid"),
        shape=(8, 8, 3),
    )
    model.compile("rmsprop", "mae")
    return model


def wide_and_deep():
    """Inputs by name, whose keys are in another order than they are given in."""
    import keras
    from keras import layers

    wide, deep = keras.Input((5,), name="wide"), keras.Input((3,), dtype="int32", name="deep")
    words = layers.Flatten()(layers.Embedding(20, 4)(deep))
    x = layers.Dense(8, activation="relu")(layers.Concatenate()([wide, words]))
    model = keras.Model({"wide": wide, "deep": deep}, layers.Dense(1, activation="sigmoid")(x))
    model.compile("rmsprop", "binary_crossentropy")
    return model


def subclassed():
    """A model whose code calls its layers, and blocks of them, called once."""
    import keras
    from keras import layers

    class Block(layers.Layer):
        def __init__(self, filters):
            super().__init__()
            self.conv, self.norm = layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization()
            self.shortcut = layers.Conv2D(filters, 1)

        def call(self, x, training=False):
            y = keras.ops.relu(self.norm(self.conv(x), training=training))
            return y + self.shortcut(x)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [Block(4), Block(6)]
            self.head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dropout(0.2)])
            self.classify = layers.Dense(3, activation="softmax")

        def call(self, x, training=False):
            for block in self.blocks:
                x = block(x, training=training)
            return self.classify(self.head(x, training=training))

    model = Net()
    model(keras.ops.zeros((1, 8, 8, 3)))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def attentive():
    import keras
    from keras import layers

    first, second = keras.Input((9,), dtype="int32"), keras.Input((7,), dtype="int32")
    embedding, plain = layers.Embedding(20, 8, mask_zero=True), layers.Embedding(20, 8)
    a, b = embedding(first), embedding(second)
    c, d = plain(first), plain(second)
    x = layers.LayerNormalization()(layers.Add()([a, layers.MultiHeadAttention(2, 4)(a, b)]))
    x = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True)
    seen = [
        *(x, layers.Attention(use_scale=True, score_mode="concat", dropout=0.1)([a, b])),
        *(layers.AdditiveAttention()([a, b]), layers.Attention()([c, d], use_causal_mask=True)),
        *(layers.AdditiveAttention(use_scale=False)([c, d]), c),
    ]
    pooled = [layers.GlobalMaxPooling1D()(one) for one in seen]
    return keras.Model([first, second], layers.Dense(3)(layers.Concatenate()(pooled)))


def penalised():
    import keras
    from keras import layers, regularizers

    model = _sequential(
        layers.Conv2D(
            6, 3, activation="relu", activity_regularizer=regularizers.L2(1e-2), kernel_regularizer="l2"
        ),
        *(layers.ActivityRegularization(l1=1e-3), layers.Flatten()),
        layers.Dense(4, bias_regularizer=regularizers.L1(1e-3)),
        shape=(8, 8, 3),
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("rmsprop", loss, metrics=["accuracy"])
    return model


def constrained():
    import keras
    from keras import constraints as c
    from keras import layers

    model = _sequential(
        layers.Conv2D(4, (3, 2), kernel_constraint=c.MaxNorm(0.5, axis=[0, 1, 2]), activation="relu"),
        layers.BatchNormalization(gamma_constraint=c.NonNeg()),
        layers.Flatten(),
        layers.Dense(5, kernel_constraint=c.UnitNorm(), bias_constraint=c.NonNeg(), activation="elu"),
        layers.Dense(3, kernel_constraint=c.MinMaxNorm(0.2, 0.9, rate=0.7, axis=1), activation="softmax"),
        shape=(6, 6, 2),
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy")
    return model


def clipped():
    import keras

    rate = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.05, 0.01])
    return _compiled(keras.optimizers.SGD(rate, momentum=0.9, global_clipnorm=0.1))


def by_value():
    import keras

    rate = keras.optimizers.schedules.ExponentialDecay(1e-2, 2, 0.5, staircase=True)
    return _compiled(keras.optimizers.RMSprop(rate, clipvalue=0.01))


def _sequential(*body, shape):
    import keras

    return keras.Sequential([keras.Input(shape), *body])


def _compiled(optimizer):
    from keras import layers

    model = _sequential(
        layers.Dense(8, activation="swish"), layers.Dense(1, activation="sigmoid"), shape=(6,)
    )
    model.compile(optimizer, "binary_crossentropy", metrics=["AUC"])
    return model


MODELS = (
    *(augmented, unet, siamese, constants, transformer, each_step, several, partly, rows, focal),
    *(averaged, sgd, rmsprop, adadelta, adamax, lion, scheduled, clipped, by_value),
    *(masked, masked_mean, recurrent, attentive, penalised, constrained, losses, unwritten),
    *(cells, autoencoder, wide_and_deep, subclassed),
)


def read(out: Path) -> None:
    import keras

    from keras_impl.trace import graph

    for number, build in enumerate(MODELS):
        keras.utils.clear_session()
        keras.utils.set_random_seed(number)
        model, folder = build(), out / build.__name__ / "graph"
        graph.read(model, build.__name__).write(folder)
        graph._save(model, folder / "model.keras")


def write(out: Path) -> None:
    from lightning_impl.migrate import command

    for build in MODELS:
        folder = out / build.__name__
        package = folder / f"package_{build.__name__}"
        package.mkdir()
        request = {"graph": str(folder / "graph"), "out": str(package), "layers": [], "stub": False}
        command.run({**request, "answer": str(folder / "answer.json")})


def train(out: Path) -> None:
    """Run the train.py of every package for two batches; what fails goes to trained.json, by name."""
    import functools
    import runpy

    import lightning.pytorch as pl

    flags = {"limit_train_batches": 2, "limit_val_batches": 2, "enable_progress_bar": False}
    pl.Trainer = functools.partial(  # type: ignore[misc]
        pl.Trainer, **flags, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu"
    )
    failed = {}
    for build in MODELS:
        name = build.__name__
        sys.path.insert(0, str(out / name))
        try:
            runpy.run_module(f"package_{name}.train", run_name="__main__")
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    (out / "trained.json").write_text(json.dumps(failed))


if __name__ == "__main__":
    {"keras": read, "torch": write, "train": train}[sys.argv[1]](Path(sys.argv[2]))
