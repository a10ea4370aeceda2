"""What a user can choose among by name, here so that the command line offers it without importing torch."""

from __future__ import annotations

import difflib
from collections.abc import Collection

SAMPLERS = ("auto", "packed", "hf", "vllm")
"""How a policy samples, see :class:`espo_gym.policy.Policy`."""

DTYPES = ("float32", "bfloat16")
"""Of the forward pass in training; the weights are float32, since 16 bits would round small steps away."""

PROTOCOLS = ("teaching",)
"""Names of :data:`espo_gym.experiments.protocol.PROTOCOLS`."""

ALIASES = {
    alias: names.split()
    for names, aliases in {
        "learning_rate": "lr actor_lr policy_lr step_size",
        "rollout_size": "batch_size train_batch_size rollout_batch_size n_steps num_steps steps_per_rollout",
        "group_size": "num_generations n_generations num_samples n_samples samples_per_prompt rollout_n",
        "n_minibatches": "minibatches num_minibatches num_mini_batches num_mini_batch minibatch_size mini_batch_size",
        "n_epochs": "epochs num_epochs num_iterations ppo_epochs update_epochs num_ppo_epochs",
        "micro_batch_tokens": "micro_batch_size per_device_train_batch_size gradient_accumulation_steps",
        "activation_checkpointing": "gradient_checkpointing",
        "kl_coef": "beta kl kl_beta kl_coeff kl_penalty kl_loss_coef init_kl_coef",
        "clip_low clip_high": "clip epsilon eps clip_eps clip_range cliprange clip_ratio",
        "clip_low": "epsilon_low eps_low clip_ratio_low",
        "clip_high": "epsilon_high eps_high clip_ratio_high",
        "value_clip": "clip_range_vf cliprange_value",
        "dual_clip": "delta clip_ratio_c",
        "entropy_coef": "ent_coef entropy entropy_coeff entropy_bonus",
        "vf_coef": "value_coef critic_coef value_loss_coef",
        "value_learning_rate": "critic_lr value_lr",
        "lam": "gae_lambda lambda lambd gae_lam",
        "gamma": "discount discount_factor",
        "adam_beta1 adam_beta2": "betas adam_betas",
        "adam_beta1": "beta1",
        "adam_beta2": "beta2",
        "max_grad_norm": "grad_clip clip_grad clip_grad_norm gradient_clip grad_norm",
        "warmup_steps": "warmup num_warmup_steps warmup_ratio",
        "temperature": "temp",
        "max_completion_tokens": "max_new_tokens max_tokens max_length max_completion_length max_response_length",
        "target_kl": "desired_kl max_kl",
        "seed": "random_seed random_state",
        "algo": "algorithm method loss trainer",
        "policy": "model model_name model_path model_name_or_path checkpoint",
        "env": "environment task dataset dataset_name",
        "env_arg": "env_args env_kwargs",
        "timesteps": "total_timesteps n_timesteps steps max_steps",
        "out": "output output_dir out_dir save_dir save_path log_dir logdir folder",
    }.items()
    for alias in aliases.split()
}
"""What other libraries call an option: alias -> its names here."""


def meant(name: str, known: Collection[str]) -> list[str]:
    """Those of the ``known`` names that ``name`` may mean: what it is called elsewhere, else what is spelled alike."""
    named = [ours for ours in ALIASES.get(name, []) if ours in known]
    return named or difflib.get_close_matches(name, known, n=1)
