"""The directory of what a machine keeps: database, Redis, keys, the last good configuration."""

from pathlib import Path

from proxy.config import Config, ConfigError


def data_directory(config: Config) -> Path:
    """Returns the data directory, which is made if need be. Raises ConfigError where it cannot be."""
    directory = Path(config.data_dir).absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("data_dir", str(directory), str(error.strerror)) from None
    return directory
