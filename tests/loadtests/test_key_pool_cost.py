"""The keys of the benchmark are what the control plane would publish. The case itself runs in `test_own_cases.py`."""

from loadtests.key_pool_cost import credentials
from proxy.secrets import VARIABLE, Secrets, new_key


def test_each_key_is_another_and_can_be_decrypted() -> None:
    secrets = Secrets([new_key()], VARIABLE)
    keys = credentials(secrets, 3)
    decrypted = [secrets.decrypt(key.secret, f"credential:{key.id}") for key in keys]
    assert decrypted == ["sk-benchmark-key_0", "sk-benchmark-key_1", "sk-benchmark-key_2"]
