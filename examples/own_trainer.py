"""Lesson 5: the losses are pure functions of tensors, for use in your own trainer.

Here the trainer is a one-page loop: a plain transformers model, rewards from an environment, one optimizer. The policy
is used only for sampling, because a sampler that returns log-probs and entropies is tedious to write.

    python examples/own_trainer.py          # about 20 seconds on one core
"""

import click
import torch

from espo_gym import LossBatch, Policy, Sampling
from espo_gym.algorithms import espo_loss
from espo_gym.envs import MathVectorEnv

PROBLEMS, GROUP, MINIBATCHES = 32, 8, 8


@click.command()
@click.option("--steps", default=20, show_default=True, help="Rollouts.")
def main(steps: int) -> None:
    policy = Policy.from_pretrained("espo_gym/teaching")
    model, pad = policy.model, policy.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    envs = MathVectorEnv("espo_gym/Addition-v0", num_envs=PROBLEMS * GROUP)

    for step in range(steps):
        # Equal seeds give equal problems: GROUP completions for each.
        seeds = [step * PROBLEMS + i for i in range(PROBLEMS) for _ in range(GROUP)]
        prompts, _ = envs.reset(seed=seeds)
        ids = [policy.encode_prompt(prompt) for prompt in prompts]
        streams = range(step * len(seeds), (step + 1) * len(seeds))
        completions = policy.generate(ids, streams, Sampling(max_completion_tokens=48))
        _, rewards, _, _, infos = envs.step(completions.texts)

        reward = torch.tensor(rewards, dtype=torch.float32).view(PROBLEMS, GROUP)
        advantages = ((reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)).flatten()  # (N,)
        has_verdict = torch.tensor(infos["has_verdict"])  # (N,) a verifier failure is not a wrong answer

        # All Addition prompts have the same length, so none needs padding.
        prompt = torch.tensor(ids)  # (N, S)
        tokens = torch.where(completions.mask, completions.tokens, pad)  # (N, T)
        lowest = highest = 1.0
        clipped = []
        for rows in torch.randperm(len(seeds), generator=torch.Generator().manual_seed(step)).chunk(MINIBATCHES):
            # Attention is causal, so padding on the right affects nothing that matters.
            logits = model(torch.cat([prompt, tokens], 1)[rows]).logits[:, prompt.shape[1] - 1 : -1]  # (B, T, V)
            logps = logits.log_softmax(-1).gather(-1, tokens[rows][..., None]).squeeze(-1)  # (B, T)
            out = espo_loss(
                LossBatch(
                    logps=logps,
                    old_logps=completions.logps[rows],
                    mask=completions.mask[rows],
                    advantages=advantages[rows],
                    entropies=completions.entropies[rows],
                    vocab_size=policy.vocab_size,
                    has_verdict=has_verdict[rows],
                ),
                alpha=0.5,
            )
            optimizer.zero_grad()
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            clipped.append(out.metrics["clip_fraction_active"])
            lowest, highest = min(lowest, out.metrics["ratio_min"]), max(highest, out.metrics["ratio_max"])
        print(
            f"rollout {step:2}  accuracy {reward.mean():.3f}  clipped {sum(clipped) / len(clipped):.3f}"
            f"  ratios {lowest:.2f} to {highest:.2f}"
        )


if __name__ == "__main__":
    main()
