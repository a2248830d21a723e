"""Reports are the same after they lay in Redis; what other versions add is passed over."""

import msgspec
import pytest

from proxy.shared_state.backend_reports import BackendReport, decode_report, encode_report

REPORT = BackendReport(cpu_usage=12.5, memory_usage=80.0, load_avg_1=0.25, at_s=1_700_000_000.5)


def test_a_report_is_the_same_after_it_lay_in_redis() -> None:
    assert decode_report(encode_report(REPORT)) == REPORT


def test_fields_of_a_newer_version_are_passed_over() -> None:
    data = msgspec.msgpack.encode({**msgspec.to_builtins(REPORT), "new": 1})
    assert decode_report(data) == REPORT


@pytest.mark.parametrize("data", [b"", b"garbage", msgspec.msgpack.encode({"cpu_usage": 1.0})])
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_report(data)
