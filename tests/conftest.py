"""Keras picks its backend at its first import: torch where it is installed, else TensorFlow."""

import importlib.util
import os

os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "tensorflow")
