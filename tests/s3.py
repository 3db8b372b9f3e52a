"""S3 on this machine: moto's server, which keeps objects in memory."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET = "s3://bucket"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The variables by which any process finds it, also set in this one; BUCKET is there."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        yield variables
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()
