"""Keras sides of a pair for each family of layers; families_torch.py has their twins of the same names."""

import keras
import numpy as np
from keras import layers


def _classifier(shape, *body, classes=3):
    return keras.Sequential([keras.Input(shape), *body, layers.Dense(classes)])


def conv1d():
    return _classifier(
        (20, 6),
        layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu"),
        layers.Conv1D(8, 4, strides=2, padding="same"),
        layers.MaxPooling1D(3, strides=2, padding="same"),
        layers.Conv1D(6, 2, groups=2, activation="tanh"),
        layers.SpatialDropout1D(0.3),
        layers.AveragePooling1D(2),
        layers.GlobalMaxPooling1D(),
    )


def conv3d():
    return _classifier(
        (6, 8, 8, 2),
        layers.Conv3D(4, 3, strides=2, padding="same", activation="elu"),
        layers.BatchNormalization(),
        layers.MaxPooling3D(2),
        layers.Conv3DTranspose(4, 4, strides=2, padding="same"),
        layers.AveragePooling3D((1, 2, 2)),
        layers.SpatialDropout3D(0.2),
        layers.GlobalAveragePooling3D(),
    )


def transposed():
    return _classifier(
        (5, 5, 3),
        layers.Conv2DTranspose(4, 3, strides=2, activation="selu"),
        layers.Conv2DTranspose(4, (2, 3), strides=(1, 2), padding="same"),
        layers.GlobalAveragePooling2D(),
    )


def transposed1d():
    return _classifier((7, 3), layers.Conv1DTranspose(4, 4, strides=2, padding="same"), layers.Flatten())


def separable():
    return _classifier(
        (12, 4),
        layers.SeparableConv1D(6, 3, padding="same", activation="silu"),
        layers.DepthwiseConv1D(3, strides=2, depth_multiplier=2),
        layers.GlobalAveragePooling1D(),
    )


def einsum():
    inputs = keras.Input((6, 8))
    x = layers.EinsumDense("abc,cd->abd", (None, 12), bias_axes="d", activation="softsign")(inputs)
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de")(x)
    x = layers.Reshape((6, 10))(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def norms():
    return _classifier(
        (6, 6, 8),
        layers.BatchNormalization(scale=False),
        layers.ReLU(),
        layers.BatchNormalization(center=False, epsilon=1e-4, momentum=0.9),
        layers.LayerNormalization(),
        layers.GroupNormalization(4),
        layers.GroupNormalization(-1),
        layers.RMSNormalization(),
        layers.UnitNormalization(),
        layers.GlobalAveragePooling2D(),
    )


def frozen():
    model = _classifier(
        (6, 6, 3), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalMaxPooling2D()
    )
    model.layers[0].trainable = model.layers[1].trainable = False
    return model


def adapted():
    normalise = layers.Normalization()
    normalise.adapt(np.random.default_rng(0).normal(3, 2, size=(50, 5)))
    return _classifier((5,), normalise, layers.Dense(4, activation="softplus"))


def preprocessed():
    return _classifier(
        (8, 8, 3),
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.9, 0.8, 0.7]),
        layers.GlobalAveragePooling2D(),
    )


def recurrent():
    return _classifier(
        (7, 5),
        layers.GRU(6, return_sequences=True),
        layers.SimpleRNN(5, return_sequences=True),
        layers.LSTM(4),
    )


def reset_before():
    return _classifier((7, 5), layers.GRU(6, reset_after=False))


def bidirectional():
    return _classifier(
        (7, 5),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.Bidirectional(layers.GRU(3)),
    )


def stacked():
    return _classifier((7, 5), layers.LSTM(6, return_sequences=True), layers.LSTM(6))


def time_distributed():
    return _classifier(
        (4, 6, 6, 2),
        layers.TimeDistributed(layers.Conv2D(3, 3, activation="relu")),
        layers.TimeDistributed(layers.Flatten()),
        layers.TimeDistributed(layers.Dense(5)),
        layers.LSTM(4),
    )


def attention():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs)
    x = layers.Add()([x, inputs])
    x = layers.Attention(use_scale=False)([x, x])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def shapes():
    inputs = keras.Input((6, 6, 4))
    x = layers.ZeroPadding2D(((1, 0), (0, 1)))(inputs)
    x = layers.Conv2D(4, 3)(x)
    x = layers.UpSampling2D(2, interpolation="nearest")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Cropping2D(((1, 2), (3, 0)))(x)
    x = layers.MaxPooling2D(4)(x)
    x = layers.Permute((2, 1, 3))(x)
    x = layers.Reshape((-1, 4))(x)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.RepeatVector(3)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def merges():
    inputs = keras.Input((6,))
    a = layers.Dense(5, activation="relu")(inputs)
    b = layers.Dense(5, activation="sigmoid")(inputs)
    c = layers.Add()([a, b])
    d = layers.Subtract()([a, b])
    e = layers.Multiply()([c, d])
    f = layers.Maximum()([a, e])
    g = layers.Minimum()([b, f])
    h = layers.Average()([f, g])
    x = layers.Concatenate()([c, d, h])
    return keras.Model(inputs, layers.Dense(3)(x))


def operations():
    inputs = keras.Input((5, 5, 3))
    x = layers.Conv2D(4, 3)(inputs)
    x = keras.ops.relu(x) * 2.0 + x
    x = keras.ops.mean(keras.ops.transpose(x, (0, 2, 1, 3)), axis=(1, 2))
    return keras.Model(inputs, layers.Dense(3)(keras.ops.concatenate([x, keras.ops.tanh(x)], axis=-1)))


ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hard_silu"),
    *("hard_sigmoid", "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink", "sigmoid", "log_sigmoid"),
    *("tanh", "softplus", "softsign", "softmax", "log_softmax"),
)


def activations():
    inputs = keras.Input((6,))
    branches = [layers.Dense(4, activation=name)(inputs) for name in ACTIVATIONS]
    branches += [layers.PReLU()(layers.Dense(4)(inputs)), layers.ReLU(negative_slope=0.1)(inputs)]
    branches += [layers.LeakyReLU(negative_slope=0.2)(inputs), layers.ELU(0.5)(inputs)]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(branches)))


def random():
    return _classifier(
        (8, 8, 3),
        layers.RandomFlip(),
        layers.GaussianNoise(0.5),
        layers.Conv2D(4, 3),
        layers.SpatialDropout2D(0.3),
        layers.GaussianDropout(0.3),
        layers.AlphaDropout(0.2),
        layers.Flatten(),
        layers.Dropout(0.5),
    )


class Scale(layers.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")

    def call(self, x):
        return x * self.gamma


def block():
    """A block's own parameters: in Keras layers of their own."""
    from keras.src.applications.convnext import LayerScale, StochasticDepth

    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 3, padding="same", activation="gelu")(inputs)
    x = LayerScale(0.5, 4)(x)
    x = layers.Add()([StochasticDepth(0.5)(x), inputs])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def functions():
    return _classifier(
        (8, 8, 3),
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dense(5, activation="tanh"),
    )


def subclasses():
    return functions()


def cells():
    """Cells on one another, in one layer; and a layer of one cell."""
    stacked = layers.RNN([layers.LSTMCell(6), layers.LSTMCell(4)], return_sequences=True)
    return _classifier(
        (7, 5), stacked, layers.RNN(layers.GRUCell(3), return_sequences=True), layers.SimpleRNN(4)
    )


class Blocks(keras.Model):
    """As most write one: no layer has its weights before the model runs."""

    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(4, 3, activation="relu")
        self.block = Block(4)
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(3, activation="softmax")

    def call(self, x, training=False):
        return self.head(self.pool(self.block(self.stem(x))))


def unbuilt():
    return Blocks()


def _compiled(optimizer):
    model = _classifier((6,), layers.Dense(8, activation="relu"))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def plain_adamw():
    rate = keras.optimizers.schedules.CosineDecay(0.01, 4, warmup_target=0.02, warmup_steps=1)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.05, clipnorm=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return _compiled(optimizer)


def plain_sgd():
    return _compiled(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, global_clipnorm=0.1))


def plain_rmsprop():
    return _compiled(keras.optimizers.RMSprop(momentum=0.5, centered=True, clipvalue=0.01))


def normed_weights():
    return _classifier((6, 6, 3), layers.Conv2D(4, 3), layers.Flatten())


def pixelwise():
    """A Dense layer that torch has as a convolution, and the other way round."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Dense(5, activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(4, 1, activation="silu")(x)
    return keras.Model(inputs, layers.Conv2D(3, 1)(x)[:, 0, 0])


class Block(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(filters, 3, name="conv")
        self.act = layers.ReLU(name="act")

    def call(self, x):
        return self.act(self.conv(x))


def repeated_names():
    def block(filters):
        return keras.Sequential([layers.Conv2D(filters, 3, name="conv"), layers.ReLU(name="act")])

    return _classifier((10, 10, 3), block(4), block(5), Block(6), Block(7), layers.Flatten())


def several():
    """Tokens and an image in; two outputs by name. Adam would add up a token's squared gradients."""
    tokens, image = keras.Input((5,), dtype="int32"), keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling1D()(layers.Embedding(11, 4)(tokens))
    y = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, activation="relu")(image))
    both = layers.Concatenate()([x, y])
    kind = layers.Dense(3, activation="softmax", name="kind")(both)
    model = keras.Model([tokens, image], {"kind": kind, "age": layers.Dense(1)(both)})
    model.compile(keras.optimizers.SGD(0.1))
    return model


def multi_label():
    return keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="sigmoid")])


def kept_in_float32():
    return _classifier((6,), layers.Dense(4, activation="relu", dtype="float32"), layers.Dense(4))


def compiled():
    model = _classifier((6,), layers.Dense(4, activation="relu"))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    model.compile("adam", loss)
    return model


def segmentation():
    body = layers.Conv2D(4, 3, padding="same"), layers.Conv2D(3, 1, activation="softmax")
    return keras.Sequential([keras.Input((6, 6, 2)), *body])


def by_rule():
    return _classifier((6,), Power(), layers.Dense(4))


class Power(layers.Layer):
    def build(self, shape):
        self.exponent = self.add_weight(shape=(shape[-1],), initializer="ones", name="exponent")

    def call(self, x):
        return keras.ops.power(x + 1.0, self.exponent)


def vision_transformer():
    """Patches, a first token and positions that are learnt, blocks with packed attention."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((-1, 8))(layers.Conv2D(8, 4, strides=4)(inputs))
    x = ClassToken()(x)
    x = Positions()(x)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(y, y)])
    y = layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(8)(y)])
    return keras.Model(inputs, layers.Dense(3)(layers.LayerNormalization()(x)[:, 0]))


class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal", name="token")

    def call(self, x):
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x], axis=1)


class Positions(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(1, *shape[1:]), initializer="normal", name="table")

    def call(self, x):
        return x + self.table


def without_rule():
    return keras.Sequential([keras.Input((6,)), Power(name="power"), layers.Dense(4)])
