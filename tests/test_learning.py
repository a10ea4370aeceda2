"""Each algorithm solves the teaching task: about ten seconds a run."""

import pytest
from tiny import teaching_policy


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sampled_accuracy_on_addition_reaches_nine_in_ten_within_30_rollouts(algorithm, seed):
    algo = algorithm(teaching_policy(), "espo_gym/Addition-v0", preset="teaching", seed=seed)
    accuracies: list[float] = []

    def watch(local_variables, global_variables):
        accuracies.append(algo.logger.name_to_value.get("rollout/accuracy", accuracies[-1] if accuracies else 0.0))
        return True

    algo.learn(30 * 256, callback=watch, log_interval=1000)
    assert len(accuracies) == 30 and accuracies[0] < 0.5  # there was something to learn
    assert max(accuracies) >= 0.90
    result = algo.evaluate(n_problems=256, k=4)
    assert result["greedy"] >= 0.90 and result["avg@4"] >= 0.85
