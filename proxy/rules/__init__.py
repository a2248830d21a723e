"""Pure rules: plain values in, plain values out. No I/O, no clock, no randomness; each is tested with values alone."""
