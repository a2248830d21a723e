"""What is generated of the proto file is what the proto file says now."""

import subprocess
from pathlib import Path

import pytest

from admin.grpc_api import management_pb2 as pb
from admin.grpc_api.services import SERVICES

ROOT = Path(__file__).parents[3]
FOLDER = Path("admin/grpc_api")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([ROOT / "scripts" / "protos", folder], check=True)
    return folder / FOLDER


@pytest.mark.parametrize("name", ["management_pb2.py", "management_pb2.pyi", "management_pb2_grpc.py"])
def test_generated_code_is_up_to_date(made: Path, name: str) -> None:
    assert (ROOT / FOLDER / name).read_text() == (made / name).read_text(), "run scripts/protos"


def test_each_call_of_the_proto_file_is_there_and_no_other() -> None:
    services = pb.DESCRIPTOR.services_by_name
    assert {name: set(service.methods_by_name) for name, service in services.items()} == {
        name: set(methods) for name, methods in SERVICES.items()
    }
