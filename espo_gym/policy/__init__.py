"""The model and its two verbs: completions are sampled by ``generate`` and scored by ``logps``.

Read from the top: :mod:`.policy` has the verbs, :mod:`.language_model` the model and its tokenizer below them.
``generate`` runs the schedule of :mod:`.sampler` over a :mod:`.step` (:mod:`.decoding` the model's own forward pass,
:mod:`.packed_step` packed weights, :mod:`.cuda_graphs` the same as CUDA graphs) or calls :mod:`.vllm`. ``logps`` is
:mod:`.scoring`. :mod:`.lm_head` and :mod:`.matmul` are the arithmetic that both share.
"""

from espo_gym.choices import SAMPLERS
from espo_gym.sampling import Sampling

from .policy import BUNDLED, Policy
from .sampler import Completions
from .scoring import TokenScores

__all__ = ["BUNDLED", "SAMPLERS", "Completions", "Policy", "Sampling", "TokenScores"]
