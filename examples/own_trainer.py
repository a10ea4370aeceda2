"""Lesson 5: the losses are pure functions of tensors, for those who have a trainer already.

Here the trainer is a loop of a page: a plain transformers model, rewards from a function, one optimizer. The policy is
used for sampling alone, since a sampler with log-probs and entropies is tedious to write.

    python examples/own_trainer.py          # about 20 seconds on one core
"""

import click
import gymnasium as gym
import torch

from espo_gym import LossBatch, Policy, Sampling
from espo_gym.algorithms import espo_loss

PROBLEMS, GROUP, MINIBATCHES = 32, 8, 8


@click.command()
@click.option("--steps", default=20, show_default=True, help="Rollouts.")
def main(steps: int) -> None:
    policy = Policy.from_pretrained("espo_gym/teaching")
    model, pad = policy.model, policy.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    envs = gym.make_vec("espo_gym/Addition-v0", num_envs=PROBLEMS * GROUP)

    for step in range(steps):
        # Equal seeds are equal problems: GROUP completions of each.
        seeds = [step * PROBLEMS + i for i in range(PROBLEMS) for _ in range(GROUP)]
        prompts, _ = envs.reset(seed=seeds)
        ids = [policy.encode_prompt(prompt) for prompt in prompts]
        streams = range(step * len(seeds), (step + 1) * len(seeds))
        said = policy.generate(ids, streams, Sampling(max_completion_tokens=48))
        _, rewards, _, _, infos = envs.step(said.texts)

        reward = torch.tensor(rewards, dtype=torch.float32).view(PROBLEMS, GROUP)
        advantages = ((reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)).flatten()  # (N,)
        has_verdict = torch.tensor(infos["has_verdict"])  # (N,) a verifier that failed has not said "wrong"

        # All prompts of Addition are as long as each other, so that none needs padding.
        prompt = torch.tensor(ids)  # (N, S)
        tokens = torch.where(said.mask, said.tokens, pad)  # (N, T)
        lowest = highest = 1.0
        clipped = []
        for rows in torch.randperm(len(seeds), generator=torch.Generator().manual_seed(step)).chunk(MINIBATCHES):
            # Causal attention: the padding on the right is behind everything that matters.
            logits = model(torch.cat([prompt, tokens], 1)[rows]).logits[:, prompt.shape[1] - 1 : -1]  # (B, T, V)
            logps = logits.log_softmax(-1).gather(-1, tokens[rows][..., None]).squeeze(-1)  # (B, T)
            out = espo_loss(
                LossBatch(
                    logps=logps,
                    old_logps=said.logps[rows],
                    mask=said.mask[rows],
                    advantages=advantages[rows],
                    entropies=said.entropies[rows],
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
