"""The version, spelled once. A constant, since asking the installed package for it costs 20 ms of every start."""

VERSION = "0.1.0"
