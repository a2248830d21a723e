"""Tests of the tools that load and deceive the relay."""
