"""What every test shares: hypothesis runs without a clock, because a shared machine has no steady one."""

from hypothesis import settings

settings.register_profile("relaygate", deadline=None, derandomize=True)
settings.load_profile("relaygate")
