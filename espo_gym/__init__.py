"""Math problems as Gymnasium text environments, and policy optimizers that solve them behind one interface."""

from pathlib import Path

# In the repository algorithms/ and envs/ lie beside this folder, in a wheel inside it (see pyproject.toml).
# This line lets a checkout run without being installed, and never another checkout's files.
if not Path(__file__).with_name("envs").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

from . import envs as envs  # registers the environments; loads no torch

__version__ = "0.1.0"
