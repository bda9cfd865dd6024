import os

# TensorFlow reads this when it is first imported; its start-up notes would bury the run's own lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
