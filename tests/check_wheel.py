"""Run by ``make wheel-check`` in an environment that holds the wheel and nothing of the checkout: ``alone`` if it lacks
what training needs.
"""

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym

import espo_gym

site = Path(sysconfig.get_path("purelib"))
assert Path(espo_gym.__file__).is_relative_to(site), espo_gym.__file__
assert not (site / "algorithms").exists() and not (site / "envs").exists(), "our folders leaked to the top level"
env = gym.make("espo_gym/Addition-v0")
observation, info = env.reset(seed=0)
_, reward, terminated, _, _ = env.step(info["problem"].answer)
assert (reward, terminated) == (1.0, True)
scripts = Path(sys.executable).parent
said = subprocess.run(
    [scripts / "espo-gym", "verify", r"\boxed{x+1}", "1+x"], check=True, capture_output=True, text=True
)
assert "verdict    correct" in said.stdout, said.stdout
if "alone" in sys.argv:
    assert find_spec("torch") is None, "the wheel alone brought torch"
    train = subprocess.run([scripts / "espo-gym", "train"], capture_output=True, text=True)
    assert train.returncode == 1 and "pip install 'espo-gym[train]'" in train.stderr, train.stderr
    print("wheel check without the extra passed")
    sys.exit()

from espo_gym.reports.html import page  # noqa: E402

algorithm = espo_gym.ESPO("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=16)
algorithm.learn(16)
assert 'id="data"' in page("x"), "the report's template, style and script are in the wheel"
print(f"wheel check passed: {observation}{info['problem'].answer}, {algorithm.num_timesteps} timesteps")
