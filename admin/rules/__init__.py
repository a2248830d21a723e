"""Decisions of the control plane: values in, values out."""
