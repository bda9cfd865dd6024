"""Rules for the layers of families_keras and families_torch that no table has."""


def keras_power(layer):
    return {"kind": "Power", "weights": {"exponent": layer.exponent}}


def torch_power(module):
    return {"kind": "Power", "weights": {"exponent": ("exponent", lambda exponent: exponent[0])}}


def token(layer):
    return {"kind": "ClassToken", "weights": {"token": layer.token}}


def positions(layer):
    return {"kind": "Embedding", "weights": {"embeddings": (layer.table, lambda table: table[0])}}
