#!/usr/bin/env python3
"""A client of Pulse that shares no code with it.

It knows the service's name and asks the server for everything else: descriptors come by reflection (v1alpha, the
only one that Python's client speaks), messages are built from them at run time, health and error details are the
published packages'. In: flags. Out: one JSON object a line on standard output, field names as in the .proto.
Exit code 0 if done; 1 if the server refused or broke off, with {"error": {code, message, details}} as the last line;
2 for flags that do not fit.

    client.py --addr localhost:7655 --cacert ca.pem list
    client.py --addr localhost:7655 --cacert ca.pem --token pctl_... watch --count 1
"""

import argparse
import base64
import json
import sys
import time
import uuid

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2  # noqa: F401  its messages are what error details decode to
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

SERVICE = "pulse.control.v1.ControlPlaneService"


def show(value):
    """Prints one JSON line, at once: whoever reads it may wait for it."""
    print(json.dumps(value, sort_keys=True), flush=True)


def as_dict(message):
    """Fields as named in the .proto, those at their default too; uint64 becomes a string, as protobuf's JSON has it."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def error_details(error):
    """The google.rpc details of an error, each with its "@type"; one of an unknown type stays as base64."""
    status = rpc_status.from_call(error)
    details = []
    for detail in status.details if status else []:
        try:
            details.append(json_format.MessageToDict(detail, preserving_proto_field_name=True))
        except TypeError:
            value = base64.b64encode(detail.value).decode()
            details.append({"@type": detail.type_url, "value_base64": value})
    return details


def failed(code, message, details=()):
    show({"error": {"code": code, "message": message, "details": list(details)}})
    return 1


class Client:
    """One channel, and the methods of the service as the server describes them."""

    def __init__(self, args):
        if args.plaintext:
            self.channel = grpc.insecure_channel(args.addr)
        else:
            with open(args.cacert, "rb") as file:
                self.channel = grpc.secure_channel(args.addr, grpc.ssl_channel_credentials(file.read()))
        self.timeout = args.timeout
        self.metadata = []
        if args.token:
            self.metadata.append(("authorization", f"Bearer {args.token}"))
        if args.proxy_token:
            self.metadata.append(("x-proxy-token", args.proxy_token))
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def service(self, name):
        return self.pool.FindServiceByName(name)

    def call(self, method_name, fields):
        """Calls one method; `fields` in protobuf's JSON. Returns a message, or an iterator of them if it streams."""
        method = self.service(SERVICE).methods_by_name[method_name]
        request = json_format.ParseDict(fields, message_factory.GetMessageClass(method.input_type)())
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        stub = kind(
            f"/{SERVICE}/{method_name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        return stub(request, timeout=self.timeout, metadata=self.metadata)


def list_services(client, _args):
    """Every service that the server names, with its methods."""
    services = []
    for name in sorted(client.database.get_services()):
        methods = [
            {"name": method.name, "streams": method.server_streaming} for method in client.service(name).methods
        ]
        services.append({"name": name, "methods": methods})
    show({"services": services})
    return 0


def health(client, args):
    """SERVING, NOT_SERVING, ...; anything but SERVING is a failure."""
    stub = health_pb2_grpc.HealthStub(client.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=args.service), timeout=client.timeout)
    show({"status": health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)})
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def register(client, args):
    fields = {
        "hostname": args.hostname,
        "kind": f"PROXY_KIND_{args.kind.upper()}",
        "proxy_url": args.proxy_url,
        "machine_id": args.machine_id,
        "proxy_id": args.proxy_id,
        "version": args.version,
    }
    show(as_dict(client.call("Register", fields)))
    return 0


def watch(client, args):
    """One line a message, until `--count` of them have come. A stream that ends before that is a failure."""
    fields = {
        "epoch": args.epoch,
        "scope": args.scope,
        "revision": args.revision,
        "hash": args.hash,
        "version": args.version,
        "source": "LIST_SOURCE_PUSHED" if args.hash else "LIST_SOURCE_NONE",
    }
    stream = client.call("WatchAuthorizedNodes", fields)
    seen = 0
    for message in stream:
        show(as_dict(message))
        seen += 1
        if seen == args.count:
            stream.cancel()
            return 0
    return failed("OK", f"the stream ended after {seen} of {args.count} messages")


def report(client, args):
    """One reading of one node, or with `--unreadable` the reason why there is none."""
    node_report = {
        "node": {"name": args.node, "ip": args.ip},
        # The moment of collection, in milliseconds: what protobuf's JSON takes for a Timestamp.
        "collected_at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(args.at)) + f".{int(args.at % 1 * 1000):03d}Z",
        "epoch": args.epoch,
        "revision": args.revision,
    }
    if args.unreadable:
        node_report["unreadable_reason"] = args.unreadable
    else:
        reading = {"sensor": args.sensor, "kind": "SENSOR_KIND_CPU_PACKAGE", "temperature_celsius": args.celsius}
        node_report["readings"] = [reading]
    fields = {"session": args.session, "sequence": args.sequence, "reports": [node_report]}
    show(as_dict(client.call("ReportTemperatures", fields)))
    return 0


def sync(client, args):
    """Says that a list was applied, or with `--refused` that it was not, and why."""
    fields = {
        "epoch": args.epoch,
        "scope": args.scope,
        "revision": args.revision,
        "hash": args.hash,
        "outcome": "SYNC_OUTCOME_REFUSED" if args.refused else "SYNC_OUTCOME_APPLIED",
        "on_disk": args.on_disk,
        "detail": args.detail,
        "version": args.version,
    }
    if args.refused:
        fields["refusal_reason"] = f"REFUSAL_REASON_{args.refused.upper()}"
    show(as_dict(client.call("ReportSync", fields)))
    return 0


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addr", required=True, help="HOST:PORT; the host as it stands in the certificate")
    transport = parser.add_mutually_exclusive_group(required=True)
    transport.add_argument("--cacert", help="PEM file of the CA that the server's certificate comes from")
    transport.add_argument("--plaintext", action="store_true", help="no TLS")
    parser.add_argument("--token", help="sent as `authorization: Bearer`: a join token for register, else a ctrl token")
    parser.add_argument("--proxy-token", help="sent as `x-proxy-token`")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for the whole call (default: 30)")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(run):
        added = commands.add_parser(run.__name__.removesuffix("_services"), help=run.__doc__)
        added.set_defaults(run=run)
        return added

    def held_list(added):
        """Which list is spoken of."""
        added.add_argument("--epoch", type=int, default=0)
        added.add_argument("--scope", default="")
        added.add_argument("--revision", type=int, default=0)
        added.add_argument("--hash", default="")
        added.add_argument("--version", default="0.0.0-interop")

    command(list_services)

    added = command(health)
    added.add_argument("--service", default="", help="default: the server as a whole")

    added = command(register)
    added.add_argument("--hostname", required=True)
    added.add_argument("--kind", choices=["socket", "http"], default="socket")
    added.add_argument("--proxy-url", default="")
    added.add_argument("--machine-id", default="")
    added.add_argument("--proxy-id", default="")
    added.add_argument("--version", default="0.0.0-interop")

    added = command(watch)
    added.add_argument("--count", type=int, default=1, help="how many messages to wait for (default: 1)")
    held_list(added)

    added = command(report)
    added.add_argument("--node", required=True, help="its name, as it stands in the list")
    added.add_argument("--ip", default="", help="its address, as it stands in the list")
    value = added.add_mutually_exclusive_group(required=True)
    value.add_argument("--celsius", type=float)
    value.add_argument("--unreadable", metavar="REASON")
    added.add_argument("--sensor", default="interop/temp1")
    added.add_argument("--session", default=str(uuid.uuid4()), help="a UUID (default: a new one)")
    added.add_argument("--sequence", type=int, default=1)
    added.add_argument("--at", type=float, default=time.time(), help="Unix seconds of collection (default: now)")
    added.add_argument("--epoch", type=int, default=0)
    added.add_argument("--revision", type=int, default=0)

    added = command(sync)
    added.add_argument("--refused", metavar="REASON", help="for example wrong_hash (default: applied)")
    added.add_argument("--on-disk", action="store_true")
    added.add_argument("--detail", default="")
    held_list(added)

    return parser.parse_args()


def main():
    args = parse_args()
    client = Client(args)
    try:
        return args.run(client, args)
    except grpc.RpcError as error:
        return failed(error.code().name, error.details(), error_details(error))
    except KeyError as error:
        return failed("NOT_IN_REFLECTION", str(error.args[0]))
    except json_format.ParseError as error:
        print(f"client.py: these flags do not fit the server's messages: {error}", file=sys.stderr)
        return 2
    finally:
        client.channel.close()


if __name__ == "__main__":
    sys.exit(main())
