"""How a backend is spelled as a field of a hash: its upstream's name, a NUL and its own id."""

from proxy.shared_state.linked_groups import Name

SEPARATOR = "\0"


def field_of(name: Name) -> bytes:
    return SEPARATOR.join(name).encode()


def name_of(field: bytes) -> Name | None:
    """Returns which backend a field is about; None where it is about none."""
    try:
        upstream, separator, backend = field.decode().partition(SEPARATOR)
    except UnicodeDecodeError:
        return None
    return (upstream, backend) if separator else None
