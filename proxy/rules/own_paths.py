"""The paths that the relay answers itself. They win over routes, so a route of the same prefix is refused."""

from enum import Enum

from proxy.config import ConfigError, Server


class Own(Enum):
    """What the relay tells of itself at a path of its own, by the setting that moves that path."""

    HEALTH = "server.health_prefix"
    STATISTICS = "server.stats_path"


def own_paths(server: Server) -> dict[str, Own]:
    """Returns all of them. Raises ConfigError where two would be one."""
    own = {}
    if server.health_prefix is not None:
        prefix = server.health_prefix.rstrip("/")
        own = {f"{prefix}/healthz": Own.HEALTH, f"{prefix}/readyz": Own.HEALTH}
    if server.stats_path in own:
        raise ConfigError(Own.STATISTICS.value, f"{server.stats_path} tells of health, expected another path")
    if server.stats_path is not None:
        own[server.stats_path] = Own.STATISTICS
    return own


def hidden_by(own: Own) -> str:
    """Returns what is wrong with a route at such a path."""
    return f"the relay answers this path itself, expected another prefix or another {own.value}"
