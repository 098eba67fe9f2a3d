"""TensorRT 10.3 to 11.x and TensorRT for RTX as one thing: the module, and what it says.

What differs between them is asked of the module (`hasattr`), never concluded from its version.
"""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from engines.base import EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.cuda import Device

    Hear = Callable[[str, str], None]
    """Is told (severity, message) of every line."""

BackendName = Literal["tensorrt", "tensorrt-rtx"]
MODULES: dict[BackendName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_INSTALL: dict[BackendName, str] = {
    "tensorrt": "On a Jetson it belongs to JetPack: make the virtual environment with "
    "--system-site-packages. Elsewhere: pip install '.[tensorrt]' in geotag's source folder.",
    "tensorrt-rtx": "Install it with `pip install tensorrt-rtx`; it is for GeForce and RTX cards.",
}
_FREE_MEMORY = (
    "There was too little memory: close other programs; on a Jetson also stop the desktop "
    "(`sudo systemctl isolate multi-user.target`) and add swap."
)
_KEPT_LINES = 12
_MEMORY_WORDS = ("out of memory", "outofmemory", "insufficient memory", "memory allocation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A TensorRT that can be imported here."""

    name: BackendName
    module: Any
    version: str
    """In full, such as 10.16.2.10: a plan runs on exactly the version that built it."""

    @property
    def is_rtx(self) -> bool:
        """Whether it compiles for the very card only when a model is loaded."""
        return self.name == "tensorrt-rtx"

    @property
    def label(self) -> str:
        """Name and version as far as a person tells them apart."""
        return f"{self.name}-{'.'.join(self.version.split('.')[:2])}"

    def check_runs_on(self, device: Device) -> None:
        """Refuse a card that the library has no code for, as far as it says which those are.

        Raises:
            EngineUnavailableError: this is such a card.
        """
        known = getattr(self.module, "ComputeCapability", None) if self.is_rtx else None
        major, minor = device.capability
        if known is None or hasattr(known, f"SM{major}{minor}"):
            return
        listed = ", ".join(sorted(name for name in known.__members__ if name.startswith("SM")))
        raise EngineUnavailableError(
            f"starting TensorRT for RTX {self.version}: it has no code for {device}, only for "
            f"{listed}. Use TensorRT: --engine tensorrt.",
            reason=f"not for sm_{major}{minor}",
        )


def load_backend(name: BackendName) -> Backend:
    """Import a TensorRT.

    Raises:
        EngineUnavailableError: it is not here, or does not load.
    """
    try:
        module = importlib.import_module(MODULES[name])
    except ModuleNotFoundError as exc:
        if exc.name == MODULES[name]:
            raise EngineUnavailableError(
                f"starting {name}: it is not installed. {_INSTALL[name]}", reason="not installed"
            ) from exc
        raise _does_not_load(name, exc) from exc
    except (ImportError, OSError, RuntimeError) as exc:
        raise _does_not_load(name, exc) from exc
    return Backend(name=name, module=module, version=str(module.__version__))


class Attempt:
    """Something asked of TensorRT, whose functions give None and leave the reason to a logger.

    Keep it as long as what was made with its logger.
    """

    def __init__(
        self,
        backend: Backend,
        doing: str,
        *,
        kind: type[EngineError] = EngineError,
        advice: str = "",
        hear: Hear | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            backend: what is asked.
            doing: what is being done, for the text of an error.
            kind: class of the error.
            advice: the next step after an error, unless memory was short.
            hear: is told every line, verbose ones too.
        """
        self.doing = doing
        self._kind = kind
        self._advice = advice
        self.logger = _listener(backend.module.ILogger, hear)

    def made(self, make: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """What a function of TensorRT makes; raises where it makes nothing."""
        try:
            found = make(*arguments)
        except (TypeError, RuntimeError) as exc:
            # A constructor that cannot give None raises a TypeError about a null pointer.
            raise self.refusal(f"({exc})") from exc
        if found is None or found is False:
            raise self.refusal()
        return found

    def forget(self) -> None:
        """Keep no line of what is settled."""
        self.logger.errors.clear()
        self.logger.warnings.clear()

    def refusal(self, words: str = "", *, advice: str | None = None) -> EngineError:
        """An error with TensorRT's own lines.

        Args:
            words: of the exception, used where TensorRT wrote nothing.
            advice: the next step, in place of the usual one.
        """
        lines = dict.fromkeys(self.logger.errors or self.logger.warnings)
        said = " | ".join(lines) or words or "nothing"
        advice = self._advice if advice is None else advice
        if any(word in said.lower() for word in _MEMORY_WORDS):
            advice = _FREE_MEMORY
        return self._kind(f"{self.doing}: TensorRT says: {said}. {advice}".rstrip())


def _listener(base: Any, hear: Hear | None) -> Any:  # noqa: ANN401 - a class of a binding
    class Listener(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT_LINES)
            self.warnings: deque[str] = deque(maxlen=_KEPT_LINES)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            kind = str(severity.name)
            if kind in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(message.strip())
            elif kind == "WARNING":
                self.warnings.append(message.strip())
            if hear is not None:
                hear(kind, message)

    return Listener()


def _does_not_load(name: BackendName, exc: Exception) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"starting {name}: it is installed and does not load ({exc}). {_INSTALL[name]}",
        reason=f"does not load ({exc})",
    )
