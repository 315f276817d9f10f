"""The composition root's other half: adapters plugged into ports, servicers over operations."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
from google.protobuf.descriptor import FileDescriptor

from ingle.api_server.adapters.boot import InitramfsWriter
from ingle.api_server.adapters.debian import DebianImages, DebianKernels
from ingle.api_server.adapters.disk import CopyBackend, Qcow2Backend, ReflinkBackend
from ingle.api_server.adapters.files import LocalVmFiles
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.qemu import QemuEngine
from ingle.api_server.adapters.qemu.probe import AccelerationProbe
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.agents import agent_binary
from ingle.api_server.config import Config, host_limits
from ingle.api_server.host.tool import Tools
from ingle.api_server.operations.catalog import Images, Kernels
