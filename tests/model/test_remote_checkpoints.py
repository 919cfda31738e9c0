"""Checkpoints in a bucket: the same training, over a real S3 protocol and one of GCS's."""

import json
import time

import boto3
import botocore.exceptions
import pytest
from moto.server import ThreadedMotoServer

from model.program.files import sha256_hex
from model.training.checkpoints import NAME, Bucket
from tests.model.buckets import TOKEN, FakeGcs
from tests.model.runner import Runner

URI = "s3://bucket/run"
KEY = "test"  # the server takes any


@pytest.fixture(scope="module")
def server():
    server = start()
    yield server
    server.stop()


def start(port=0):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


def port(server):
    return server.get_host_and_port()[1]


def environment(port):
    """Where obstore finds the storage and its credentials."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_REGION": "us-east-1",
    }


@pytest.fixture
def at(server):
    """The environment of an S3 with nothing but an empty bucket."""
    at = environment(port(server))
    empty(client(at))
    return at


def client(at):
    """Another hand than the program's own, to look into the bucket with."""
    return boto3.client(
        "s3", endpoint_url=at["AWS_ENDPOINT_URL"], region_name=at["AWS_REGION"],
        aws_access_key_id=KEY, aws_secret_access_key=KEY,
    )  # fmt: skip


def objects(s3):
    found = s3.list_objects_v2(Bucket="bucket").get("Contents", [])
    return sorted(one["Key"] for one in found)


def empty(s3):
    s3.create_bucket(Bucket="bucket")
    for key in objects(s3):
        s3.delete_object(Bucket="bucket", Key=key)


def step(key):
    match = NAME.fullmatch(key.rpartition("/")[2])
    assert match, key
    return int(match[1])


def weights(folder):
    return sha256_hex((folder / "weights.safetensors").read_bytes())


def training(folder):
    return json.loads((folder / "training.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(small_data, train_config, tmp_path_factory):
    """A training that nobody killed, with its checkpoints on the disk."""
    runner = Runner(tmp_path_factory.mktemp("local"))
    output = runner.folder / "trained"
    program = runner.run("train", train_config(), data=small_data, output=output)
    assert program.end() == 0, program.text
    return output


@pytest.fixture
def killed(at, programs, small_data, train_config, tmp_path):
    """Arguments of a training with checkpoints in the bucket, killed -9 in the middle."""
    s3, output = client(at), tmp_path / "trained"
    config = train_config(checkpointing__uri=URI)
    again = {"config": config, "environment": at, "data": small_data, "output": output}
    arguments = {name: value for name, value in again.items() if name != "config"}
    programs.end_midway(
        lambda: len(kept := objects(s3)) >= 2 and 3 <= step(kept[-1]) < 25,
        "train", config, forget=lambda: empty(s3), **arguments,
    )  # fmt: skip
    assert not (output / "training.json").exists()
    assert not (output / "checkpoints").exists()
    return again


def test_killed_with_9_it_goes_on_from_the_bucket_to_the_same_end(
    undisturbed, killed, at, programs
):
    s3, output = client(at), killed["output"]
    newest = step(objects(s3)[-1])
    again = programs.run("train", **killed)
    assert again.end() == 0, again.text
    assert training(output)["resumed_from_steps"] == [newest]
    assert f"resuming from the checkpoint of step {newest}" in again.text
    assert weights(output) == weights(undisturbed)
    assert (output / "curves.csv").read_text() == (undisturbed / "curves.csv").read_text()
    assert len(objects(s3)) == 2  # checkpointing.keep
    assert all(key.startswith("run/trained/step-") for key in objects(s3))


@pytest.mark.slow
def test_a_truncated_newest_object_falls_back_to_the_one_before(
    undisturbed, killed, at, programs
):
    s3, output = client(at), killed["output"]
    *_, before, newest = objects(s3)
    whole = s3.get_object(Bucket="bucket", Key=newest)["Body"].read()
    s3.put_object(Bucket="bucket", Key=newest, Body=whole[:-100])
    again = programs.run("train", **killed)
    assert again.end() == 0, again.text
    assert (
        f"checkpoint {newest.rpartition('/')[2]} is damaged; trying the one before it"
        in again.text
    )
    assert training(output)["resumed_from_steps"] == [step(before)]
    assert weights(output) == weights(undisturbed)


def test_a_bucket_that_is_not_there_is_bad_input(at, programs, small_data, train_config):
    config, output = train_config(checkpointing__uri="s3://nobody/run"), programs.folder / "t"
    program = programs.run("train", config, environment=at, data=small_data, output=output)
    assert program.end() == 2, program.text
    assert program.last_line.startswith("error: checkpointing.uri (=s3://nobody/run/t): ")
    assert "404 Not Found" in program.last_line
    assert "expected a bucket that" in program.last_line


@pytest.mark.slow
def test_a_short_outage_costs_nothing(
    undisturbed, programs, small_data, train_config, tmp_path
):
    server = start()
    at = environment(port(server))
    s3 = client(at)
    empty(s3)
    config, output = train_config(checkpointing__uri=URI), tmp_path / "trained"
    program = programs.start("train", config, environment=at, data=small_data, output=output)
    program.wait_for(lambda: objects(s3))
    server.stop()
    time.sleep(5)
    assert program.process.exitcode is None, program.text
    server = start(port(server))
    assert program.end() == 0, program.text
    server.stop()
    assert training(output)["resumed_from_steps"] == []
    assert weights(output) == weights(undisturbed)


@pytest.mark.slow  # waits as long as the program does for storage to come back
def test_storage_that_is_away_is_one_clear_error_and_nothing_is_lost(
    undisturbed, programs, small_data, train_config, tmp_path
):
    server = start()
    at, output = environment(port(server)), tmp_path / "trained"
    s3 = client(at)
    empty(s3)
    again = {"config": train_config(checkpointing__uri=URI), "environment": at}
    again |= {"data": small_data, "output": output}
    program = programs.start("train", **again)
    program.wait_for(lambda: len(objects(s3)) >= 2)
    server.stop()  # what it holds stays
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        s3.list_buckets()
    absent = programs.start("train", **again | {"output": tmp_path / "absent" / "trained"})
    for ended in (program, absent):
        assert ended.end() == 1, ended.text
        assert ended.last_line.startswith(f"error: checkpointing.uri (={URI}/trained): ")
        assert "expected an answer within 30 s; to do: run the same" in ended.last_line
        assert "Traceback" not in ended.text
    assert not (output / "training.json").exists()
    server = start(port(server))
    newest = step(objects(s3)[-1])
    back = programs.run("train", **again)
    server.stop()
    assert back.end() == 0, back.text
    assert training(output)["resumed_from_steps"] == [newest]
    assert weights(output) == weights(undisturbed)


@pytest.fixture(params=["s3", "gs"])
def bucket(request, at, monkeypatch):
    """A shelf in a bucket, and what to see its objects with."""
    if request.param == "s3":
        for name, value in at.items():
            monkeypatch.setenv(name, value)
        yield Bucket("s3://bucket/run"), lambda: objects(client(at))
        return
    with FakeGcs() as gcs:
        monkeypatch.setenv("GOOGLE_BASE_URL", gcs.url)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        yield Bucket("gs://bucket/run"), lambda: sorted(gcs.objects)
        assert not gcs.refused


def test_a_bucket_keeps_what_it_is_given_even_in_several_parts(bucket):
    shelf, inside = bucket
    data = bytes(range(256)) * (50 << 10)  # 12.5 MiB; above 5 obstore uploads in parts
    names = [f"step-0000000{n}-0123456789abcdef.ckpt" for n in (1, 2)]
    shelf.put(names[1], data)
    shelf.put(names[0], b"small")
    assert inside() == [f"run/{name}" for name in names]
    assert shelf.names() == names
    assert [shelf.get(name) for name in names] == [b"small", data]
    shelf.remove(names[0])
    assert shelf.names() == names[1:]
    assert inside() == [f"run/{names[1]}"]
