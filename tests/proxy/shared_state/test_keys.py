"""What belongs together lies in one slot of a cluster."""

from redis.crc import key_slot

from proxy.shared_state import keys


def test_the_configuration_lies_in_one_slot() -> None:
    names = (keys.CONFIG_SECTIONS, keys.CONFIG_VERSION, keys.CONFIG_CHANNEL)
    assert len({key_slot(name.encode()) for name in names}) == 1


def test_what_is_metered_lies_in_one_slot() -> None:
    names = [value for name, value in vars(keys).items() if name.startswith("METER_")]
    assert len(names) == 6
    assert len({key_slot(name.encode()) for name in names}) == 1


def test_what_is_known_of_backends_lies_in_one_slot() -> None:
    names = [value for name, value in vars(keys).items() if name.startswith("BACKEND")]
    assert len(names) == 5
    assert len({key_slot(name.encode()) for name in names}) == 1


def test_what_reloads_a_certificate_lies_in_one_slot() -> None:
    assert key_slot(keys.RELOAD_TLS.encode()) == key_slot(keys.RELOAD_TLS_CHANNEL.encode())


def test_every_name_is_the_relays_own_and_spelled_once() -> None:
    names = [value for name, value in vars(keys).items() if name.isupper()]
    assert all(name.startswith("relaygate:") for name in names)
    assert len(set(names)) == len(names) == 31
