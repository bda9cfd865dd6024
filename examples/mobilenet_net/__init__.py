"""A network migrated from Keras."""
