"""From what is wished for to what there is: image, kernel, and a place to run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import InvalidArgument, NotFound, Reason
from ingle.api_server.model.image_config import KERNEL_LABEL
from ingle.api_server.model.image_reference import NO_LOGINS, Login
from ingle.api_server.model.spec import (
    LEAST_MEMORY,
    CompleteSpec,
    Defaults,
    HostLimits,
    VmSpec,
    check_catalog_name,
    check_connection,
    check_disk_holds,
    check_memory_holds,
    least_memory,
)
from ingle.api_server.model.vm import Image, Kernel, VmSettings
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.placement import Choice, Placement
from ingle.api_server.operations.runner import Progress


@dataclass(frozen=True, slots=True)
class Wanted:
    """A wish that nothing speaks against so far. Image and kernel are None where they have still to be pulled."""

    spec: CompleteSpec
    image: Image | None
    kernel: Kernel | None
    choice: Choice
    any_kernel: bool = False
    """Nobody has wished for a kernel: the image's maker may."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """All of it is here, and nothing is open."""

    settings: VmSettings
    image: Image
    kernel: Kernel


class Resolve:
    """In two parts: what can be refused at once, and what may take time."""

    def __init__(
        self,
        placement: Placement,
        images: Images,
        kernels: Kernels,
        limits: HostLimits,
        defaults: Callable[[], Defaults],
    ) -> None:
        self._placement = placement
        self.images = images
        self.kernels = kernels
        self._limits = limits
        self.defaults = defaults

    async def look(self, wish: VmSpec) -> Wanted:
        """Raises what a wish is refused with that can't be fulfilled here: InvalidArgument, NotFound, HostProblem."""
        spec = wish.with_defaults(self.defaults())
        any_kernel = not wish.kernel
        if any_kernel:
            spec = await self._with_kernel_of(await self.images.present(spec.image), spec)
        kernel = await self.kernels.present(spec.kernel)
        spec.check(self._limits, LEAST_MEMORY if kernel is None else least_memory(kernel))
        choice = await self._placement.choose(spec)
        check_connection(spec, choice.best.network)
        image = await self.images.present(spec.image)
        if image is not None:
            check_disk_holds(spec.disk_bytes, image)
        if kernel is not None:
            check_memory_holds(spec.memory_bytes, kernel)
        return Wanted(spec, image, kernel, choice, any_kernel)

    async def get(
        self, wanted: Wanted, progress: Progress, caller: Caller, logins: Mapping[str, Login] = NO_LOGINS
    ) -> Resolved:
        """Pulls what is missing, as who the caller is to registries, and finds out what runs it, which may take a
        guest. Raises the same, and what a pull does."""
        spec = wanted.spec
        image, kernel = wanted.image, wanted.kernel
        if image is None:
            image = await self.images.fetch(spec.image, logins, progress, caller)
            if wanted.any_kernel:
                spec = await self._with_kernel_of(image, spec)
                kernel = await self.kernels.present(spec.kernel)
        progress.warn(self.images.of_a_stranger(image, spec.image, caller))
        kernel = kernel or await self.kernels.pull(spec.kernel, progress, caller)
        check_disk_holds(spec.disk_bytes, image)
        check_memory_holds(spec.memory_bytes, kernel)
        if not wanted.choice.settled:
            progress.stage("placement", "finding out which engine runs it")
        place = await self._placement.settle(wanted.choice, kernel)
        check_connection(spec, place.network)
        settings = spec.settings(
            image, kernel, engine=place.engine, disk_backend=place.disk_backend, network=place.network
        )
        return Resolved(settings, image, kernel)

    async def _with_kernel_of(self, image: Image | None, spec: CompleteSpec) -> CompleteSpec:
        """With the kernel that the image's maker wants, if the image is here and says so."""
        config = None if image is None else image.config
        if config is None or not config.kernel:
            return spec
        name = config.kernel
        try:
            check_catalog_name(name, "kernel")
            await self.kernels.present(name)
        except (InvalidArgument, NotFound) as error:
            raise NotFound(
                Reason.KERNEL_NOT_FOUND,
                f"image {spec.image} asks for a kernel by its label {KERNEL_LABEL}: {error.message}",
                f"--kernel {spec.kernel}, to boot it with that one",
            ) from error
        return replace(spec, kernel=name)
