"""What a user can choose among by name, here so that the command line offers it without importing torch."""

SAMPLERS = ("auto", "packed", "hf", "vllm")
"""How a policy samples, see :class:`espo_gym.policy.Policy`."""

DTYPES = ("float32", "bfloat16")
"""Of the forward pass in training; the weights are float32, since 16 bits would round small steps away."""

PROTOCOLS = ("teaching",)
"""Names of :data:`espo_gym.experiments.protocol.PROTOCOLS`."""
