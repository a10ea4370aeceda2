"""The model and its two verbs: completions are sampled by ``generate`` and scored by ``logps``.

Read from the top: :mod:`.policy` has the verbs, :mod:`.language_model` the model and its tokenizer below them.
``generate`` runs the schedule of :mod:`.sampling` over a step of :mod:`.decoding` (the model's own forward pass, the
packed layers of :mod:`.packed_step`, their CUDA graphs in :mod:`.cuda_graphs`) or hands over to :mod:`.vllm`. ``logps``
is :mod:`.scoring`. :mod:`.lm_head` and :mod:`.matmul` are the arithmetic that both share.
"""

from espo_gym.sampling import Sampling

from .policy import BUNDLED, SAMPLERS, Policy
from .sampler import Completions
from .scoring import TokenScores

__all__ = ["BUNDLED", "SAMPLERS", "Completions", "Policy", "Sampling", "TokenScores"]
