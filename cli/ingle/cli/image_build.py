"""Images of a Dockerfile, which buildah builds in a VM that goes with the build: neither the Dockerfile nor what it
fetches is trusted with anything of this machine but the directory that it is built from.

What the VM has to say of the image is an archive as docker save writes it, and is taken as anybody's is."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingle.cli.client import Client
from ingle.cli.commands.vm.create import create_vm, delete_vm
from ingle.cli.errors import CliError, failed
from ingle.cli.exec_session import run_command
from ingle.cli.packing import pack
from ingle.cli.pulling import here
from ingle.cli.sending import described, sent
from ingle.cli.stages import Stages
from ingle.cli.uploads import Upload
from ingle.v1 import guest_pb2, image_pb2, vm_pb2

BUILDER = "debian:bookworm-buildah"
"""The image of the VM."""

_PLACE, _CONTEXT, _DOCKERFILE, _BUILT = "/root", "context", "Dockerfile", "image.tar"
_NAMES = ("Dockerfile", "Containerfile")

# A name without a registry is docker.io's, as docker has it. In a VM of its own there is nothing to isolate a step
# from.
_BUILD = f"""
set -e
exec >&2
cd {_PLACE}
printf 'unqualified-search-registries = ["docker.io"]\\nshort-name-mode = "disabled"\\n' >registries.conf
export CONTAINERS_REGISTRIES_CONF=$PWD/registries.conf
buildah build --isolation chroot --format docker --tag localhost/built "$@" {_CONTEXT}
buildah push --quiet localhost/built docker-archive:{_BUILT}:localhost/built:latest
"""


@dataclass(frozen=True)
class ImageBuild:
    """What is built: the directory that the Dockerfile may copy from, and the Dockerfile, which may be elsewhere."""

    context: Path
    dockerfile: Path
    arguments: tuple[str, ...] = ()
    """More options of buildah's."""

    @staticmethod
    def of(place: str, file: str, build_args: list[str], target: str) -> "ImageBuild":
        """What options say: `place` is a directory, or a Dockerfile in one. Raises CliError."""
        context = Path(place)
        if context.is_file() and not file:
            context, file = context.parent, place
        if not context.is_dir():
            raise failed("INVALID_ARGUMENT", f"{place}: no such directory", "ingle image build -t NAME .")
        arguments = [f"--build-arg={_with_value(each)}" for each in build_args]
        if target:
            arguments.append(f"--target={target}")
        return ImageBuild(context.resolve(), _dockerfile(context, file), tuple(arguments))

    def run(self, client: Client, name: str, machine: vm_pb2.VmSpec, stages: Stages) -> image_pb2.Image:
        """Build it in a VM like `machine`, and call it `name`; what the build says goes to stderr. Raises CliError."""
        start = image_pb2.RegisterImageStart(
            name=name, source=f"built of {described(str(self.dockerfile))}", archive=True
        )
        call = client.begin(image_pb2.RegisterImageRequest(start=start), image_pb2.RegisterImageResponse, last=False)
        # Begun first of all: a name that can't be is told before anything is made, with the answer to a later question.
        upload = Upload(client, call, image_pb2.RegisterImageRequest)
        try:
            here(client, machine.image)
            upload.check()
            vm = create_vm(client, machine, stages, ephemeral=True)
            try:
                self._copy_in(client, vm, stages)
                stages.end_live()
                self._build(client, vm, stages)
                return sent(upload, lambda to: _copy_out(client, vm, to, stages), "Making the image", stages).image
            finally:
                with suppress(CliError):  # it goes with this process, in any case
                    delete_vm(client, vm)
        except BaseException:
            upload.cancel()
            raise

    def _copy_in(self, client: Client, vm: str, stages: Stages) -> None:
        for source, name in ((self.context, _CONTEXT), (self.dockerfile, _DOCKERFILE)):
            start = guest_pb2.CopyInStart(vm=vm, path=_PLACE, name=name.encode())
            call = client.begin(guest_pb2.CopyInRequest(start=start), guest_pb2.CopyInResponse, last=False)
            stages.under_way(f"Sending {source}")

            def send(upload: Upload[guest_pb2.CopyInResponse], source: Path = source, name: str = name) -> None:
                pack(source, name, upload, lambda _name, _size: None)

            sent(Upload(client, call, guest_pb2.CopyInRequest), send, f"Sent {source}", stages)

    def _build(self, client: Client, vm: str, stages: Stages) -> None:
        argv = ["sh", "-c", _BUILD, "build", f"--file={_PLACE}/{_DOCKERFILE}", *self.arguments]
        code = run_command(client, guest_pb2.ExecStart(vm=vm, argv=argv), stages)
        if code:
            raise failed("BUILD_FAILED", f"the build ended with exit code {code}, and nothing was made of it")


def _copy_out(client: Client, vm: str, upload: Upload[image_pb2.RegisterImageResponse], stages: Stages) -> None:
    stages.under_way("Taking the image out of the VM")
    request = guest_pb2.ReadFileRequest(vm=vm, path=f"{_PLACE}/{_BUILT}")
    complete = False
    for response in client.begin(request, guest_pb2.ReadFileResponse):
        upload.write(response.data)
        complete = complete or response.HasField("end")
    if not complete:
        raise failed("GUEST_PROTOCOL", "the call ended without the end of the file")


def _dockerfile(context: Path, file: str) -> Path:
    found = [Path(file)] if file else [context / name for name in _NAMES]
    for path in found:
        if path.is_file():
            return path.resolve()
    raise failed("INVALID_ARGUMENT", f"{found[0]}: no such file", "ingle image build -t NAME -f DOCKERFILE DIR")


def _with_value(argument: str) -> str:
    """NAME=VALUE; of a name alone, with what this process's environment has for it. Raises CliError."""
    name, equals, _ = argument.partition("=")
    if not name:
        raise failed("INVALID_ARGUMENT", f"--build-arg {argument!r}: NAME=VALUE, or the NAME of a variable, is allowed")
    return argument if equals else f"{name}={os.environ.get(name, '')}"
