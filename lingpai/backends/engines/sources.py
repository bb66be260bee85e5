"""Which files a target's models are made of, so that `--reload` knows what to watch."""

import sys
import sysconfig
from pathlib import Path
from types import TracebackType

from lingpai.backends.engines.targets import Target, parse_target
from lingpai.backends.engines.user_errors import TargetError

_INSTALLED = tuple(
    {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
)


def source_files(target: str, error: BaseException | None = None) -> list[str]:
    """The files of the modules imported from the target's own folder; with `error`, also those that it names."""
    try:
        folder = source_folder(parse_target(target))
    except TargetError:
        return []
    modules = list(sys.modules.values())
    named = {getattr(module, "__file__", None) for module in modules}
    while error is not None:
        named.update(_files_of(error.__traceback__), {getattr(error, "filename", None)})
        error = error.__cause__ or error.__context__
    found = {Path(name).absolute() for name in named if isinstance(name, str) and name.endswith(".py")}
    return sorted(str(path) for path in found if _is_own(path, folder))


def source_folder(target: Target) -> Path:
    """Where the target's own modules are: beside the file, or in the working directory."""
    return Path(target.source).resolve().parent if target.is_file else Path.cwd()


def _is_own(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and not str(path).startswith(_INSTALLED)


def _files_of(trace: TracebackType | None) -> set[str]:
    files = set()
    while trace is not None:
        files.add(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return files
