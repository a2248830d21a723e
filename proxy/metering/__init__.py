"""What one worker has to do with access tokens: it asks Redis about requests, and tells it how they ended.

- `gate.py` is what routes with `access: token` share: the meter, the key of the settings, who has guessed.
- `meter.py` is what phases ask. It gathers requests and endings of one turn of the loop to a batch, and sees to it that
  each is counted once, whatever becomes of the batch on its way.
- `outages.py` says what is admitted while Redis cannot be asked.

What is decided is decided in Redis (`shared_state/meter.lua`), as `rules/metering.py` says. All of it belongs to one
event loop.
"""
