"""Policy optimizers: one file an algorithm, and the file is its formula."""

if __name__ != "espo_gym.algorithms":
    raise ImportError("this package is espo_gym.algorithms; import it under that name")
