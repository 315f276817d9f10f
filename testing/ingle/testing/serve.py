"""A whole server, as ingle-server has it, with engines of the caller's choice.

python -m ingle.testing.serve ENGINE[,ENGINE...] serve: those that ingle has are real, and any other name is of a fake.
"""

import sys
from collections.abc import Mapping

from ingle.api_server import main, plugged
from ingle.api_server.config import Config
from ingle.api_server.host.tool import Tools
from ingle.api_server.ports.disk import BootMedia
from ingle.api_server.ports.engine import Engine
from ingle.api_server.ports.sources import Library
from ingle.testing.fake_engine import FakeEngine


def engines(config: Config, tools: Tools, kernels: Library, media: BootMedia) -> Mapping[str, Engine]:
    """In the order of the command line, which is that of preference."""
    real = plugged.vmm_engines(config, tools, kernels, media)
    return {name: real.get(name) or FakeEngine(name) for name in sys.argv[1].split(",")}


if __name__ == "__main__":
    sys.exit(main.main(sys.argv[2:], engines=engines))
